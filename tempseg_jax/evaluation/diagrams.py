"""Reliability diagrams and the confusion matrix, as PNG files."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure

from tempseg_jax.evaluation.calibration import BINS, Calibration
from tempseg_jax.io import atomic

_STYLE = {"font.size": 9, "axes.axisbelow": True}
_ACCURACY, _GAP = "#0072b2", "#d55e00"  # colorblind-safe


def save_reliability(calibrations: dict[str, Calibration], path: Path) -> None:
    """Draw reliability diagrams side by side, with the share of pixels in each bin.

    Args:
        calibrations: The calibration in each panel, by the panel's title.
        path: Path of the PNG file.
    """
    centers = (np.arange(BINS) + 0.5) / BINS
    with matplotlib.rc_context(_STYLE):
        size = (3.1 * len(calibrations) + 0.4, 4.2)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(
            2,
            len(calibrations),
            squeeze=False,
            sharex=True,
            sharey="row",
            height_ratios=(3, 1),
        )
        for (title, result), upper, lower in zip(
            calibrations.items(), *axes, strict=True
        ):
            upper.plot([0, 1], [0, 1], color="0.5", lw=1, ls="--")
            upper.bar(centers, result.accuracy, 0.9 / BINS, color=_ACCURACY)
            upper.plot(
                result.confidence, result.accuracy, "o", ms=4, mfc="white", color=_GAP
            )
            upper.set(
                xlim=(0, 1),
                ylim=(0, 1),
                title=f"{title}\nECE {100 * result.ece:.2f} %, NLL {result.nll:.3f}",
            )
            share = result.count / max(result.count.sum(), 1)
            lower.bar(centers, share, 0.9 / BINS, color="0.6")
            lower.set(xlabel="confidence", yscale="log", ylim=(1e-4, 1))
        axes[0, 0].set_ylabel("accuracy")
        axes[1, 0].set_ylabel("share of pixels")
        with atomic.replacing(path) as partial:
            figure.savefig(partial, dpi=120)


def save_confusion(
    confusion: Int[np.ndarray, "k k"],
    class_names: tuple[str, ...],
    file: Path | io.BytesIO,
) -> None:
    """Draw the confusion matrix, in percent of each true class, as a PNG."""
    truth = confusion.sum(axis=1, keepdims=True)
    percent = 100 * confusion / np.maximum(truth, 1)
    side = 1.8 + 0.36 * len(class_names)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(side + 0.6, side), layout="constrained")
        axes = figure.add_subplot(xlabel="predicted", ylabel="ground truth")
        image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        ticks = np.arange(len(class_names))
        axes.set_xticks(ticks, class_names, rotation=45, ha="right")
        axes.set_yticks(ticks, class_names)
        for i, j in zip(*np.nonzero(percent >= 0.5), strict=True):
            color = "white" if percent[i, j] > 60 else "black"
            axes.text(
                j, i, f"{percent[i, j]:.0f}", ha="center", va="center", color=color,
                fontsize=7,
            )  # fmt: skip
        figure.colorbar(image, label="% of the true class", shrink=0.8)
        if isinstance(file, io.BytesIO):
            figure.savefig(file, dpi=120, format="png")
            return
        with atomic.replacing(file) as partial:
            figure.savefig(partial, dpi=120)
