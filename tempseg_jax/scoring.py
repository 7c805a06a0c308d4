"""Evaluate one split and show the result: table, pictures."""

from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int, PyTree

from tempseg_jax import mesh, metrics, pictures
from tempseg_jax.data import pipeline
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluate import Example, evaluate
from tempseg_jax.writer import read_metrics


class Result(NamedTuple):
    """What one evaluation found."""

    confusion: Int[np.ndarray, "k k"]
    examples: list[Example]

    @property
    def scores(self) -> dict[str, float]:
        """pacc, miou, macc and fwiou, 0 to 1."""
        return metrics.scores(self.confusion)

    def named(self, *, prefix: str) -> dict[str, float]:
        """Return the scores under the names of metrics.jsonl."""
        return {prefix + name: value for name, value in self.scores.items()}


def score(
    variables: PyTree,
    split: Split,
    *,
    segmenter: nn.Module,
    batch_size: int,
    num_workers: int,
    num_examples: int,
) -> Result:
    """Score whole images at native resolution, each exactly once.

    Each process scores its own share on its own devices; the matrices are then summed.
    """
    local = mesh.local_mesh()
    confusion, examples = evaluate(
        mesh.to_local(variables, local),
        pipeline.eval_batches(
            split,
            batch_size=mesh.divisible(batch_size, local),
            num_workers=num_workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ),
        segmenter=segmenter,
        num_classes=len(split.class_names),
        place=lambda batch: mesh.split_batch(batch, local),
        num_examples=num_examples,
    )
    if jax.process_count() > 1:
        confusion = multihost_utils.process_allgather(confusion).sum(axis=0)
    return Result(confusion, examples)


def table(result: Result, split: Split) -> str:
    """Return per-class IoU in per cent, and the four scores."""
    iou = metrics.iou_per_class(result.confusion)
    width = max(map(len, split.class_names))
    lines = [
        f"  {name:<{width}}  {100 * value:6.2f}"
        for name, value in zip(split.class_names, iou, strict=True)
        if not np.isnan(value)
    ]
    absent = [
        name
        for name, value in zip(split.class_names, iou, strict=True)
        if np.isnan(value)
    ]
    if absent:
        lines.append(f"  absent, left out of the mean: {', '.join(absent)}")
    scores = result.scores
    lines.append(
        "  " + "  ".join(f"{name} {100 * value:.2f}" for name, value in scores.items())
    )
    return "\n".join([f"IoU on {split.dataset} {split.name} (%)", *lines])


def save_pictures(result: Result, split: Split, folder: str | Path) -> None:
    """Write `predictions/*.png` and `curves.png` into a workdir."""
    for example in result.examples:
        pictures.save_panel(
            example, Path(folder) / "predictions", palette=split.palette
        )
    lines = read_metrics(folder)
    if lines:
        pictures.save_curves(lines, Path(folder) / "curves.png")
