"""Write a config for a folder that was surveyed."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tempseg_jax.data.sources.folder_survey import Survey


class _Length(NamedTuple):
    steps: int  # at least; a small dataset needs many epochs
    epochs: int  # at least
    crop_size: int  # pixels; at most
    evaluations: int


_GPU = _Length(steps=1000, epochs=50, crop_size=352, evaluations=20)
_BASES = {
    "resnet50_camvid": _GPU,
    "fcn_camvid": _GPU,
    "resnet50_c4_camvid": _Length(steps=600, epochs=1, crop_size=160, evaluations=6),
    # Minutes on a CPU, to see that the data is read as it should be.
    "demo": _Length(steps=400, epochs=1, crop_size=128, evaluations=4),
}
BASES = tuple(_BASES)
"""Configs that a written config may derive from."""

_BATCH = 8


def config_source(
    survey: Survey,
    *,
    base: str,
    path: Path,
    fields: Mapping[str, object] = MappingProxyType({}),
) -> str:
    """Return the source of a config that trains on the folder.

    Args:
        survey: What the folder holds.
        base: The config that it derives from, one of BASES.
        path: Where it will be written, for the command in its documentation.
        fields: More fields to set, such as `data.on_error`, and their values.
    """
    train = survey.images["train"]
    batch = min(_BATCH, train)
    per_epoch = train // batch
    length = _BASES[base]
    epochs = max(length.epochs, math.ceil(length.steps / per_epoch))
    more = "".join(f"    config.{name} = {x!r}\n" for name, x in fields.items())
    short = statistics.median(min(size) for size in survey.sizes.elements())
    crop = max(32, min(length.crop_size, int(short) // 32 * 32))
    lines = "\n".join(f"    {line}" for line in survey.lines())
    val = survey.validation_split
    no_val = "" if val == "val" else "  # there is no split val"
    name = path.stem
    return f'''r"""The images of {survey.root.resolve()}.

scripts/prepare.py wrote this file, and found

{lines}

Run:      python -m tempseg_jax.main --config={path} --workdir=runs/{name}
"""

from ml_collections import ConfigDict

from configs import {base}

CLASSES = {{  # {_classes_comment(survey)}; rename them as you like
{_classes(survey)}
}}


def get_config() -> ConfigDict:
    """Return `{base}` on these images."""
    config = {base}.get_config()
    config.data.name = "folder"
    config.data.manual_dir = {str(survey.root.resolve())!r}
    config.data.options = ConfigDict({_options(survey)})
    config.data.train_split = "train"
    config.data.val_split = "{val}"{no_val}
    config.data.batch_size = {batch}  # of {train} images
    config.data.crop_size = {crop}  # pixels; shorter sides have a median of {short:g}
    config.data.cache_bytes = 2**30
    # {epochs * per_epoch} steps, of which a tenth is warm-up
    config.steps = None  # the number of epochs counts
    config.epochs = {epochs}
    config.optimizer.warmup_epochs = {epochs / 10:g}
    config.evaluate_every_epochs = {epochs / length.evaluations:g}
    config.eval_batch_size = {batch}
{more}{_pretrained(base)}    return config
'''


def _pretrained(base: str) -> str:
    if base == "demo":
        return ""  # it has no weights to load
    return '    # config.model.pretrained = ""  # random initial weights, no download\n'


def _classes(survey: Survey) -> str:
    classes = survey.classes
    names = [f"class {k}" for k in range(len(classes))]
    if len(classes) == 2:
        names = ["background", "foreground"]
    return "\n".join(
        f'    "{name}": {value},' for name, value in zip(names, classes, strict=True)
    )


def _classes_comment(survey: Survey) -> str:
    kind = "RGB color" if survey.is_rgb else "value"
    return f"name: {kind} in the masks"


def _options(survey: Survey) -> str:
    options = {"class_names": "tuple(CLASSES)"}
    if survey.is_rgb:
        options["class_colors"] = "tuple(CLASSES.values())"
    else:  # also if the values are the labels: the lines may be reordered
        options["mask_values"] = "{str(v): k for k, v in enumerate(CLASSES.values())}"
    if survey.absent:  # listed above, in the documentation of the config
        options["allow_absent_classes"] = "True"
    inside = "".join(f'            "{k}": {v},\n' for k, v in options.items())
    return f"\n        {{\n{inside}        }}\n    "
