"""Panels of predictions and training curves, as PNG files."""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tempseg_jax.data.labels import color_labels
from tempseg_jax.evaluation.evaluator import PredictedImage
from tempseg_jax.io import atomic


def save_panel(
    example: PredictedImage, folder: Path, *, palette: UInt8[np.ndarray, "k 3"]
) -> None:
    """Write image, ground truth and prediction side by side to `folder/<id>.png`.

    An id with slashes is a path in the folder.

    Raises:
        OSError: If the file cannot be written.
    """
    picture = panel(example, palette=palette)
    path = folder / f"{example.id}.png"
    with atomic.replacing(path) as partial:
        if not cv2.imwrite(str(partial), np.ascontiguousarray(picture[..., ::-1])):
            raise OSError(
                f"{path}: could not be written; check permissions and free disk space"
            )


def panel(
    example: PredictedImage, *, palette: UInt8[np.ndarray, "k 3"]
) -> UInt8[np.ndarray, "h _ 3"]:
    """Return image, ground truth and prediction side by side."""
    truth = color_labels(example.label, palette)
    prediction = color_labels(example.prediction, palette)
    gap = np.full((len(truth), 6, 3), 255, np.uint8)
    return np.concatenate([example.image, gap, truth, gap, prediction], axis=1)


CURVES = (
    ("Segmentation loss (nats)", ("train/loss_seg",)),
    ("Adversarial losses", ("train/loss_adv", "train/loss_d")),
    ("Mean output of D", ("train/d_real", "train/d_fake")),
    ("Validation", ("val/pacc", "val/miou")),
)
"""Title of each panel, and the names in metrics.jsonl of its curves."""

Lines = list[dict[str, int | float | None]]
"""The lines of a metrics.jsonl: `step`, and values by name."""

_STYLE = {"font.size": 9, "axes.grid": True, "grid.alpha": 0.3}


def save_curves(lines: Lines, path: Path) -> None:
    """Draw losses, outputs of the discriminator and scores of one run by step.

    A panel is left out if the run has no line with its names.
    """
    shown = [c for c in CURVES if any(name in line for name in c[1] for line in lines)]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.6 * len(shown), 3), layout="constrained")
        for i, (title, names) in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), i + 1, title=title, xlabel="step")
            for name in names:
                _draw(axes, lines, name, label=name.split("/")[1])
            axes.legend(frameon=False)
        with atomic.replacing(path) as partial:
            figure.savefig(partial, dpi=120)


def save_comparison(runs: dict[str, Lines], path: Path) -> None:
    """Draw segmentation loss and validation mIoU of several runs in one figure.

    Args:
        runs: Lines of metrics.jsonl, by the name of the run.
        path: Path of the PNG file.

    Raises:
        ValueError: If no run has a segmentation loss or a validation mIoU.
    """
    compared = {"train/loss_seg": CURVES[0][0], "val/miou": "Validation mIoU"}
    everything = [line for lines in runs.values() for line in lines]
    shown = {
        name: title
        for name, title in compared.items()
        if any(line.get(name) is not None for line in everything)
    }
    if not shown:
        raise ValueError(
            f"{', '.join(runs)}: no line of metrics.jsonl has {' or '.join(compared)}; "
            "train for more steps, or give other workdirs"
        )
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4 * len(shown), 3), layout="constrained")
        for i, (name, title) in enumerate(shown.items()):
            axes = figure.add_subplot(1, len(shown), i + 1, title=title, xlabel="step")
            for color, (label, lines) in enumerate(runs.items()):
                _draw(axes, lines, name, label=label, color=f"C{color}")
            axes.legend(frameon=False)
        with atomic.replacing(path) as partial:
            figure.savefig(partial, dpi=120)


def _draw(
    axes: Axes, lines: Lines, name: str, *, label: str, color: str | None = None
) -> None:
    if label.startswith("_"):
        label = f" {label}"  # Matplotlib leaves such labels out of the legend
    points = [(x["step"], x[name]) for x in lines if x.get(name) is not None]
    if points:
        single = len(points) == 1  # a line of one point cannot be seen
        marker = "o" if single or name.startswith("val/") else None
        axes.plot(
            *zip(*points, strict=True), marker=marker, ms=3, label=label, color=color
        )
