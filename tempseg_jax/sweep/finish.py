"""The end of one run: measure its last checkpoint on every split."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from tempseg_jax import builders, mesh
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.codec import BadFile
from tempseg_jax.data.decoder import decode
from tempseg_jax.data.subset import Chosen, evenly_spaced
from tempseg_jax.evaluation import metrics
from tempseg_jax.evaluation.evaluator import PredictedImage, evaluate_split
from tempseg_jax.inference.settings import DEFAULT_SETTINGS
from tempseg_jax.models.flops import count_parameters
from tempseg_jax.objective.losses import Objective
from tempseg_jax.sweep import store
from tempseg_jax.sweep.measurement import Measurement, collect
from tempseg_jax.workdir.checkpoint import Checkpoints

EXAMPLES = 128
"""Number of evenly spaced validation images whose predictions are stored."""


class Splits(NamedTuple):
    """The splits that a finished run is measured on: part of train, val, and test."""

    by_name: dict[str, Split]
    images_per_epoch: int  # all images that are trained on

    @classmethod
    def load(
        cls, config: ConfigDict, *, test_split: str, train_images: int | None
    ) -> "Splits":
        """Read the splits.

        The images of train are evenly spaced over it, because its first ones may be
        similar, such as the frames of one video.

        Args:
            config: The config of the sweep.
            test_split: Name of the split that is reported as test; "" for none.
            train_images: Number of images of train; None for as many as val has.

        Raises:
            ValueError: If the dataset has no such split.
            FileNotFoundError: If the files of the dataset are missing.
        """
        val = builders.load_split(config, config.data.val_split)
        train = builders.load_training_images(config)
        count = len(val.examples) if train_images is None else train_images
        by_name = {"val": val}
        if count:
            by_name["train"] = _part(config, train, count)
        if test_split:
            by_name["test"] = builders.load_split(config, test_split)
        return cls(by_name, images_per_epoch=len(train.examples))

    def of_run(self, config: ConfigDict) -> "Splits":
        """Return the splits that a run is measured on.

        If it uses the labels of some images only, these are the images of train:
        others would tell nothing about the train–val gap.
        """
        if config.data.labeled_fraction == 1 or "train" not in self.by_name:
            return self
        labeled = builders.load_training_split(config)
        part = _part(config, labeled, len(self.by_name["train"].examples))
        return self._replace(by_name=self.by_name | {"train": part})


def finish(
    config: ConfigDict,
    folder: Path,
    splits: Splits,
    *,
    examples: Path,
) -> dict[str, Any]:
    """Measure the last checkpoint of a run and store the measurements.

    Args:
        config: The config of the run.
        folder: The workdir of the run.
        splits: The splits to measure.
        examples: File of the validation images; written if it does not exist.

    Returns:
        The contents of `final.json`, without its duration and provenance.

    Raises:
        FileNotFoundError: If the run has no checkpoint.
        ValueError: If the checkpoint holds another network than the config's.
        OSError: If a measurement cannot be written.
    """
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        step = checkpoints.resolve("latest")
        objective, state, _ = builders.restore_state(
            config,
            checkpoints,
            splits.by_name["val"],
            step=step,
            devices=mesh.local_mesh(),
        )
    splits = splits.of_run(config)
    temperatures = (1.0, builders.training_temperature(config))
    final = {
        "step": step,
        "temperatures": temperatures,
        "images_per_epoch": splits.images_per_epoch,
        "parameters": {"segmenter": count_parameters(state.segmenter.params)},
        "splits": {},
    }
    for name, split in splits.by_name.items():
        images = evaluate_split(
            state.segmenter.variables,
            split,
            segmenter=objective.segmenter,
            batch_size=config.eval_batch_size,
            num_workers=config.data.num_workers,
            settings=DEFAULT_SETTINGS,
            temperatures=temperatures,
        )
        measurement, kept = collect(
            images, keep=_spaced_ids(split) if name == "val" else frozenset()
        )
        store.save_measurement(folder / f"{name}.npz", measurement)
        final["splits"][name] = _summary(measurement)
        if name == "val":
            _save_pictures(kept, examples=examples, folder=folder)
    if state.discriminator is not None:
        final["parameters"]["discriminator"] = count_parameters(
            state.discriminator.params
        )
        final["discriminator_change"] = _change(
            state.discriminator.params, _initial_discriminator(config, objective)
        )
    return final


def _part(config: ConfigDict, split: Split, count: int) -> Split:
    """Return `count` evenly spaced images of a training split; all if it has no more.

    With `data.on_error=skip`, images that cannot be decoded are left out, as they are
    in training.
    """
    part = evenly_spaced(split, count)
    if config.data.on_error != "skip":
        return part
    good = [i for i in range(len(part.examples)) if _is_decodable(part, i)]
    return dataclasses.replace(part, examples=Chosen(part.examples, good))


def _is_decodable(split: Split, index: int) -> bool:
    try:
        decode(split.examples[index], split=split)
    except BadFile:
        return False
    return True


def _spaced_ids(split: Split) -> frozenset[str]:
    examples = evenly_spaced(split, EXAMPLES).examples
    return frozenset(example["id"] for example in examples)


def _summary(measurement: Measurement) -> dict[str, Any]:
    return {
        "images": len(measurement.ids),
        **metrics.scores(measurement.confusion.sum(axis=0)),
        "nll": measurement.nll.tolist(),
        "ece": measurement.ece.tolist(),
    }


def _save_pictures(kept: list[PredictedImage], *, examples: Path, folder: Path) -> None:
    kept = sorted(kept, key=lambda example: example.id)
    store.save_pictures(folder / "predictions.npz", kept, fields=("prediction",))
    if not examples.exists():  # images and labels are the same for all runs
        store.save_pictures(examples, kept, fields=("image", "label"))


def _initial_discriminator(config: ConfigDict, objective: Objective) -> PyTree:
    """Draw the discriminator's first parameters again from the seed of the run."""
    scratch = config.copy_and_resolve_references()
    scratch.model.pretrained = ""  # the discriminator does not depend on it
    state = builders.initial_state(scratch, objective, class_names=())
    return state.discriminator.params


def _change(params: PyTree, initial: PyTree) -> dict[str, float]:
    """Return how far the parameters are from their initial values.

    Returns:
        `distance`, the Euclidean distance; `relative`, that divided by the norm of the
        initial parameters; `largest`, the largest change of one parameter.
    """
    start = np.concatenate([np.ravel(x) for x in jax.tree.leaves(initial)])
    end = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    distance = float(np.linalg.norm(end - start))
    return {
        "distance": distance,
        "relative": distance / float(np.linalg.norm(start)),
        "largest": float(np.max(np.abs(end - start))),
    }
