"""The end of one run: measure its last model on every split."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from tempseg_jax import builders, mesh
from tempseg_jax.data import pipeline
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.sources.base import Record
from tempseg_jax.evaluation import metrics
from tempseg_jax.evaluation.evaluator import Example
from tempseg_jax.sweep import store
from tempseg_jax.sweep.measure import Measurement, measure
from tempseg_jax.workdir.checkpoint import Checkpoints

EXAMPLES = 128
"""Validation images, evenly spaced, whose predictions are kept to look at."""


class Splits(dict[str, Split]):
    """The splits that a finished run is measured on: train (a part), val, test."""

    @classmethod
    def load(
        cls, config: ConfigDict, *, test_split: str, train_images: int | None
    ) -> "Splits":
        """Read them; of train evenly spaced images, by default as many as val has.

        Not its first ones: frames of one drive, say, that all look alike.

        Raises:
            ValueError, FileNotFoundError: the dataset has no such split.
        """
        val = builders.load_split(config, config.data.val_split)
        train = builders.load_split(config, config.data.train_split)
        count = len(val.examples) if train_images is None else train_images
        splits = cls(val=val)
        splits.images_per_epoch = len(train.examples)
        if count:
            examples = _Spaced(train.examples, count)
            splits["train"] = dataclasses.replace(train, examples=examples)
        if test_split:
            splits["test"] = builders.load_split(config, test_split)
        return splits

    images_per_epoch: int


def finish(
    config: ConfigDict,
    folder: Path,
    splits: Splits,
    *,
    examples: Path,
) -> dict[str, Any]:
    """Measure the last checkpoint of a run; return what `final.json` says of it."""
    objective = builders.build_objective(
        config, num_classes=len(splits["val"].class_names)
    )
    checkpoints = Checkpoints(folder)
    step = checkpoints.resolve("latest")
    devices = mesh.local_mesh()
    state = checkpoints.restore(
        mesh.replicated_shapes(builders.abstract_state(config, objective), devices),
        builders.describe_model(config, objective, splits["val"]),
        step=step,
    )
    temperatures = (1.0, builders.training_temperature(config))
    final = {
        "step": step,
        "temperatures": temperatures,
        "images_per_epoch": splits.images_per_epoch,
        "parameters": {"segmenter": _count(state.segmenter.params)},
        "splits": {},
    }
    for name, split in splits.items():
        found, pictures = measure(
            state.segmenter.variables,
            pipeline.eval_batches(
                split,
                batch_size=mesh.divisible(config.eval_batch_size, devices),
                num_workers=config.data.num_workers,
                process_index=0,
                process_count=1,
            ),
            segmenter=objective.segmenter,
            num_classes=len(split.class_names),
            temperatures=temperatures,
            pictures_of=_spaced_ids(split) if name == "val" else frozenset(),
        )
        store.save_measurement(folder / f"{name}.npz", found)
        final["splits"][name] = _summary(found)
        if name == "val":
            _save_pictures(pictures, examples=examples, folder=folder)
    if state.discriminator is not None:
        final["parameters"]["discriminator"] = _count(state.discriminator.params)
        final["discriminator_change"] = _change(
            state.discriminator.params, _initial_discriminator(config, objective)
        )
    checkpoints.close()
    return final


class _Spaced(Sequence[Record]):
    """So many examples of a split, from its first to its last, still undecoded."""

    def __init__(self, examples: Sequence[Record], count: int):
        self._examples = examples
        self._indices = _spaced(len(examples), min(count, len(examples)))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._examples[self._indices[index]]


def _spaced(length: int, count: int) -> list[int]:
    return np.linspace(0, length - 1, count).round().astype(int).tolist()


def _spaced_ids(split: Split) -> frozenset[str]:
    count = len(split.examples)
    indices = _spaced(count, min(EXAMPLES, count))
    return frozenset(split.examples[i]["id"] for i in indices)


def _summary(found: Measurement) -> dict[str, Any]:
    scores = metrics.scores(found.confusion.sum(axis=0))
    named = {k: v if math.isfinite(v) else None for k, v in scores.items()}
    return {
        "images": len(found.ids),
        **named,
        "nll": found.nll.tolist(),
        "ece": found.ece.tolist(),
    }


def _save_pictures(pictures: list[Example], *, examples: Path, folder: Path) -> None:
    pictures = sorted(pictures, key=lambda picture: picture.id)
    store.save_pictures(folder / "predictions.npz", pictures, fields=("prediction",))
    if not examples.exists():  # the same for all runs
        store.save_pictures(examples, pictures, fields=("image", "label"))


def _initial_discriminator(config: ConfigDict, objective: builders.Networks) -> PyTree:
    """Draw D again from the seed; what the segmenter starts from does not matter."""
    scratch = config.copy_and_resolve_references()
    scratch.model.pretrained = ""
    return builders.initial_state(scratch, objective).discriminator.params


def _change(params: PyTree, initial: PyTree) -> dict[str, float]:
    """How far D has come: Euclidean, relative to its start, and the largest."""
    start = np.concatenate([np.ravel(x) for x in jax.tree.leaves(initial)])
    moved = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)]) - start
    distance = float(np.linalg.norm(moved))
    return {
        "distance": distance,
        "relative": distance / float(np.linalg.norm(start)),
        "largest": float(np.max(np.abs(moved))),
    }


def _count(params: PyTree) -> int:
    return sum(x.size for x in jax.tree.leaves(params))
