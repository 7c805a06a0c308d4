"""Load the segmenter's initial weights from a weight file or from another run."""

from collections.abc import Sequence
from pathlib import Path

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree
from ml_collections import ConfigDict

from tempseg_jax.inference import published, restore
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.models.weights import catalog, pretrained
from tempseg_jax.models.weights.report import LoadReport, describe_preprocessing

_OF_CLASSES = ("score", "upsample")
"""How the names of layers start whose shapes depend on the classes."""


def preprocessing_of(source: str) -> Preprocessing:
    """Return the preprocessing that a network with these weights needs.

    Args:
        source: `model.pretrained`: a key of `PRETRAINED`, the path of a file, or a run:
            its workdir, what scripts/publish.py wrote, or hf://USER/NAME. "" is the
            preprocessing of a network that is trained from scratch.

    Raises:
        FileNotFoundError: If a folder has no checkpoint.
        ValueError: If it is none of these.
    """
    if _is_run(source):
        model = restore.read_model(_located(source))
        return Preprocessing.restored(model["preprocessing"])
    return catalog.preprocessing_of(source)


def check_fits(variables: PyTree, model: ConfigDict) -> None:
    """Check what `load` can check without weights and without files of PRETRAINED.

    A run on the Hugging Face Hub is downloaded.

    Args:
        variables: The segmenter's variables, or their shapes.
        model: The section `model` of the config; `pretrained` is not "".

    Raises:
        FileNotFoundError: If a folder has no checkpoint.
        ValueError: If the weights are not those of this network.
    """
    if not _is_run(model.pretrained):
        pretrained.check_fits(
            variables,
            model.pretrained,
            segmenter_name=model.name,
            missing=tuple(model.pretrained_missing),
        )
        return
    _check_run(model, name=restore.read_model(_located(model.pretrained))["name"])


def load(
    variables: PyTree, model: ConfigDict, *, class_names: Sequence[str]
) -> tuple[PyTree, LoadReport]:
    """Replace freshly initialized variables by those that `model.pretrained` names.

    Args:
        variables: The segmenter's variables as `init` returns them; not modified.
        model: The section `model` of the config; `pretrained` is not "".
        class_names: The names of the classes, in the order of the labels.

    Raises:
        FileNotFoundError: If a folder has no checkpoint.
        ValueError: If the weights are not those of this network.
    """
    if not _is_run(model.pretrained):
        return pretrained.load_pretrained(
            variables,
            model.pretrained,
            segmenter_name=model.name,
            missing=tuple(model.pretrained_missing),
        )
    run = restore.load(_located(model.pretrained))
    _check_run(model, name=run.name)
    return _of_run(variables, run, source=model.pretrained, class_names=class_names)


def _check_run(model: ConfigDict, *, name: str) -> None:
    """Check that the run's network, `model.name` of its config, is this one."""
    if model.pretrained_missing:
        raise ValueError(
            f"model.pretrained_missing: {tuple(model.pretrained_missing)} names tensors"
            f" of a file, but model.pretrained={model.pretrained} is a run; set it to "
            "()"
        )
    if name != model.name:
        raise ValueError(
            f"model.pretrained: {model.pretrained} is a run of model.name={name!r},"
            f" not {model.name!r}; change one of the two"
        )


def _of_run(
    variables: PyTree, run: Predictor, *, source: str, class_names: Sequence[str]
) -> tuple[PyTree, LoadReport]:
    """Take all layers that the run has; not those of the scores of other classes."""
    fresh = flatten_dict(variables, sep="/")
    trained = flatten_dict(jax.device_get(run.variables), sep="/")
    same_classes = run.class_names == tuple(class_names)
    loaded = {
        name: value
        for name, value in trained.items()
        if name in fresh and (same_classes or not _depends_on_classes(name))
    }
    for name, value in loaded.items():
        if value.shape != fresh[name].shape:
            raise ValueError(
                f"model.pretrained: {name} has the shape {value.shape} in {source} and "
                f"{fresh[name].shape} in this network; set the fields of model, such as"
                " width, to those of the run"
            )
    classes = "the same classes" if same_classes else "other classes"
    read = describe_preprocessing(run.segmenter.preprocessing)
    report = LoadReport(
        origin=f"{source} (step {run.step}, {run.dataset}, {classes}; {read})",
        loaded=tuple(name for name in fresh if name in loaded),
        fresh=tuple(name for name in fresh if name not in loaded),
        unused=tuple(name for name in trained if name not in loaded),
    )
    return unflatten_dict(fresh | loaded, sep="/"), report


def _is_run(source: str) -> bool:
    if not source or source in catalog.PRETRAINED:
        return False
    return source.startswith(published.HUB) or Path(source).expanduser().is_dir()


def _located(source: str) -> str | Path:
    return source if source.startswith(published.HUB) else Path(source).expanduser()


def _depends_on_classes(name: str) -> bool:
    return any(part.startswith(_OF_CLASSES) for part in name.split("/"))
