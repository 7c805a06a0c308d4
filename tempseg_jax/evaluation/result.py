"""Evaluate one split and show the result: scores, table, pictures."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree

from tempseg_jax import mesh
from tempseg_jax.data import pipeline
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import calibration, metrics, plots
from tempseg_jax.evaluation.calibration import Calibration
from tempseg_jax.evaluation.evaluator import Example, Sums, evaluate
from tempseg_jax.inference.sliding_window import InferenceSettings
from tempseg_jax.workdir.metrics_writer import read_metrics

PANELS = 8
"""Predictions that an evaluation writes as pictures."""

Temperatures = dict[str, float]
"""By name: `one`, `t_g` (of training), `fitted` (of least NLL on validation)."""


class Result(NamedTuple):
    """What one evaluation found."""

    sums: Sums
    temperatures: Temperatures
    examples: list[Example]
    seconds: float

    @property
    def images_per_s(self) -> float:
        """Decoding, the network and the counting together, on all processes."""
        return self.sums.images / self.seconds

    @property
    def scores(self) -> dict[str, float]:
        """pacc, miou, macc and fwiou, 0 to 1."""
        return metrics.scores(self.sums.confusion)

    @property
    def calibrations(self) -> dict[str, Calibration]:
        """The calibration at each temperature, by its name."""
        values = tuple(self.temperatures.values())
        found = calibration.calibrations(self.sums.tally, values)
        return dict(zip(self.temperatures, found, strict=True))

    def named(self, *, prefix: str) -> dict[str, float]:
        """Return the scores under the names of metrics.jsonl.

        `nll` and `ece` are at T = 1, `nll_t_g` and `ece_t_g` at training's T_G.
        """
        named = dict(self.scores)
        for name, found in self.calibrations.items():
            suffix = "" if name == "one" else f"_{name}"
            named |= {f"nll{suffix}": found.nll, f"ece{suffix}": found.ece}
        named["images_per_s"] = self.images_per_s
        return {prefix + name: value for name, value in named.items()}


def score(
    variables: PyTree,
    split: Split,
    *,
    segmenter: nn.Module,
    batch_size: int,
    num_workers: int,
    settings: InferenceSettings,
    temperatures: Temperatures,
    num_examples: int,
    visit: Callable[[Example], None],
) -> Result:
    """Score images at native resolution, each exactly once.

    Each process scores its own share on its own devices and shows it to its own
    `visit`; the sums are then over all.
    """
    local, start = mesh.local_mesh(), time.perf_counter()
    examples = []

    def keep(example: Example) -> None:
        if len(examples) < num_examples:
            examples.append(example)
        visit(example)

    sums = evaluate(
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
        settings=settings,
        temperatures=tuple(temperatures.values()),
        place=lambda batch: mesh.split_batch(batch, local),
        devices=local.size,
        visit=keep,
    )
    sums = mesh.over_processes(sums)
    return Result(sums, temperatures, examples, time.perf_counter() - start)


def table(result: Result, split: Split) -> str:
    """Return per-class IoU in per cent, the four scores, and the calibration."""
    iou = metrics.iou_per_class(result.sums.confusion)
    width = max(map(len, split.class_names))
    rows = list(zip(split.class_names, iou, strict=True))
    lines = [
        f"  {name:<{width}}  {100 * value:6.2f}"
        for name, value in rows
        if not np.isnan(value)
    ]
    absent = [name for name, value in rows if np.isnan(value)]
    if absent:
        lines.append(f"  absent, left out of the mean: {', '.join(absent)}")
    scores = result.scores
    lines.append(
        "  " + "  ".join(f"{name} {100 * value:.2f}" for name, value in scores.items())
    )
    titles = {"one": "", "t_g": " (T_G)", "fitted": " (fitted)"}
    for name, found in result.calibrations.items():
        at = f"T = {found.temperature:.3g}{titles[name]}"
        lines.append(
            f"  nll {found.nll:.4f} nats  ece {100 * found.ece:.2f} %  at {at}"
        )
    lines.append(
        f"  {result.sums.images} images in {result.seconds:.1f} s, "
        f"{result.images_per_s:.1f} images/s"
    )
    return "\n".join([f"IoU on {split.dataset} {split.name} (%)", *lines])


def save_pictures(result: Result, split: Split, folder: str | Path) -> None:
    """Write `predictions/*.png` and `curves.png` into a workdir."""
    for example in result.examples:
        plots.save_panel(example, Path(folder) / "predictions", palette=split.palette)
    lines = read_metrics(folder)
    if lines:
        plots.save_curves(lines, Path(folder) / "curves.png")
