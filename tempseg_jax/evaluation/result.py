"""Evaluate one split: its scores, the printed table and the pictures."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree
from tqdm import tqdm

from tempseg_jax import mesh
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import calibration, metrics, plots
from tempseg_jax.evaluation.calibration import Calibration
from tempseg_jax.evaluation.evaluator import PredictedImage, Sums, evaluate_split
from tempseg_jax.inference.settings import InferenceSettings
from tempseg_jax.workdir.metrics_writer import rate_text, read_metrics

PANELS = 8
"""Number of predictions that an evaluation writes as pictures."""

Temperatures = dict[str, float]
"""By name: `one` (T = 1), `t_g` (T_G of training), `fitted` (least NLL on val)."""


class Result(NamedTuple):
    """The result of one evaluation, over all processes."""

    sums: Sums
    temperatures: Temperatures
    examples: list[PredictedImage]  # a few of this process's
    seconds: float  # wall-clock time

    @property
    def images_per_s(self) -> float:
        """Throughput of decoding, network and scoring together, over all processes."""
        return self.sums.images / self.seconds

    @property
    def scores(self) -> dict[str, float]:
        """`pacc`, `miou`, `macc` and `fwiou`, 0 to 1: see `metrics.scores`."""
        return metrics.scores(self.sums.confusion)

    @property
    def calibrations(self) -> dict[str, Calibration]:
        """The calibration at each temperature, by the temperature's name."""
        values = tuple(self.temperatures.values())
        results = calibration.calibrations(self.sums.tally, values)
        return dict(zip(self.temperatures, results, strict=True))

    def named(self, *, prefix: str) -> dict[str, float]:
        """Return the scores under their names in metrics.jsonl, after a prefix.

        `nll` and `ece` are at T = 1, `nll_t_g` and `ece_t_g` at the T_G of training.
        """
        named = dict(self.scores)
        for name, result in self.calibrations.items():
            suffix = "" if name == "one" else f"_{name}"
            named |= {f"nll{suffix}": result.nll, f"ece{suffix}": result.ece}
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
    num_examples: int = 0,
    visit: Callable[[PredictedImage], None] | None = None,
    progress: str = "",
) -> Result:
    """Score the images of a split at native resolution, each exactly once.

    Args:
        variables: Variables of the segmenter, replicated over all devices of all
            processes.
        split: The images and their labels.
        segmenter: The network.
        batch_size: Images per forward pass and process.
        num_workers: Threads that decode images; 0 decodes in the calling thread.
        settings: Sliding-window inference and test-time augmentation.
        temperatures: Temperatures at which the calibration is measured, by name.
        num_examples: Number of images that this process keeps in `Result.examples`,
            evenly spaced, because neighbors may be frames of one video.
        visit: Function that is called with every image of this process's share.
        progress: Title of a progress bar with the mIoU so far of this process's share,
            shown on a terminal by the first process; "" shows none.

    Returns:
        Scores over all processes, of which each evaluates a share on its own devices.

    Raises:
        ValueError: If the segmenter's number of classes is not the split's.
    """
    start = time.perf_counter()
    examples = []
    sums = Sums.zeros(
        num_classes=len(split.class_names), num_temperatures=len(temperatures)
    )
    images = evaluate_split(
        variables,
        split,
        segmenter=segmenter,
        batch_size=batch_size,
        num_workers=num_workers,
        settings=settings,
        temperatures=tuple(temperatures.values()),
    )
    share = range(jax.process_index(), len(split.examples), jax.process_count())
    kept = {i * len(share) // num_examples for i in range(num_examples)}
    with _progress_bar(progress, images=len(share)) as bar:
        for i, scored in enumerate(images):
            sums = sums.add(scored)
            if i in kept:
                examples.append(scored.predicted.copied())
            if visit is not None:
                visit(scored.predicted)
            if bar.update():  # it is drawn again
                miou = metrics.scores(sums.confusion)["miou"]
                bar.set_postfix_str(f"mIoU so far {100 * miou:.2f}", refresh=False)
    sums = mesh.sum_over_processes(sums)
    return Result(sums, temperatures, examples, time.perf_counter() - start)


def _progress_bar(title: str, *, images: int) -> tqdm:
    """Return a bar over the images of this process's share."""
    hidden = not title or jax.process_index() > 0
    return tqdm(
        total=images,
        desc=title,
        unit="image",
        leave=False,
        disable=True if hidden else None,  # None: only on a terminal
    )


def table(result: Result, split: Split) -> str:
    """Return the lines to print: IoU by class, scores in percent, and calibration."""
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
    grid = calibration.TEMPERATURE_GRID
    if np.isclose(result.temperatures.get("fitted", 1), (grid[0], grid[-1])).any():
        titles["fitted"] = " (fitted, the end of its range)"
    for name, calibrated in result.calibrations.items():
        at = f"T = {calibrated.temperature:.3g}{titles[name]}"
        ece = 100 * calibrated.ece
        lines.append(f"  nll {calibrated.nll:.4f} nats  ece {ece:.2f} %  at {at}")
    lines.append(
        f"  {result.sums.images} images in {result.seconds:.1f} s, "
        f"{rate_text(result.images_per_s)} images/s"
    )
    return "\n".join([f"IoU on {split.dataset} {split.name} (%)", *lines])


def save_pictures(
    result: Result, split: Split, panels: Path, *, workdir: Path, curves: Path
) -> None:
    """Write pictures of an evaluation and, if there is a log, of the training.

    Args:
        result: The result of the evaluation.
        split: The evaluated split.
        panels: Folder of `<id>.png`: image, ground truth and prediction.
        workdir: The workdir, whose log has the curves.
        curves: Path of the curves.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If the log is damaged.
    """
    for example in result.examples:
        plots.save_panel(example, panels, palette=split.palette)
    if lines := read_metrics(workdir):
        plots.save_curves(lines, curves)
