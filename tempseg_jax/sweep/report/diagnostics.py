"""Train-val gap, calibration, discriminator outputs, and IoU by class."""

from collections.abc import Sequence

import numpy as np

from tempseg_jax.evaluation import metrics
from tempseg_jax.evaluation.calibration import BINS
from tempseg_jax.sweep.cells import CELLS
from tempseg_jax.sweep.report import statistics
from tempseg_jax.sweep.report.collect import Series, SweepResults
from tempseg_jax.sweep.report.tables import PAIRS, seeds
from tempseg_jax.sweep.report.view import (
    NONE,
    TextTable,
    interval_over_seeds,
    mean_std,
)

LAST = 0.1
"""Fraction of the logged values, at the end, over which D's outputs are averaged."""


def train_val_gap(sweep: SweepResults, cells: Sequence[str]) -> TextTable:
    """Return mIoU on train and val, and whether a setting reduces their difference."""

    def gap_by_seed(cell: str) -> dict[int, float]:
        train = sweep.scores(cell, "train", "miou")
        val = sweep.scores(cell, "val", "miou")
        return {seed: train[seed] - val[seed] for seed in train.keys() & val.keys()}

    reference = cells[0]
    rows = []
    for cell in cells:
        gaps, difference = gap_by_seed(cell), None
        if cell != reference:
            difference = statistics.paired_difference(gaps, gap_by_seed(reference))
        rows.append(
            (
                CELLS[cell].title,
                seeds(sweep, cell, sweep.scores(cell, "val", "miou")),
                mean_std(sweep.scores(cell, "train", "miou")),
                mean_std(sweep.scores(cell, "val", "miou")),
                mean_std(gaps),
                interval_over_seeds(difference, planned=sweep.scope.seeds),
            )
        )
    return TextTable(
        "Train–val gap",
        ("setting", "seeds", "mIoU train", "mIoU val", "gap", "Δ gap (seeds)"),
        rows,
        "gap: mIoU on train minus mIoU on val. The training images are the same for "
        "every run (of a run with a part of the labels, images with labels), evenly "
        "spaced over the split, and evaluated like those of val: whole and without "
        "augmentation. A regularizer should reduce the gap, so that "
        "Δ gap is below zero. Δ gap: paired difference from "
        f"“{CELLS[reference].title}” {PAIRS}.",
    )


def calibration(sweep: SweepResults, cells: Sequence[str]) -> TextTable:
    """Return NLL and ECE on val, at T = 1 and at the temperature of L_seg."""
    rows = []
    for cell in cells:
        finals = sweep.finished(cell)
        of_val = {seed: final["splits"]["val"] for seed, final in finals.items()}

        def column(name: str, i: int, scale: float, of_val: dict = of_val) -> str:
            values = {
                seed: scale * x[name][i]
                for seed, x in of_val.items()
                if x[name][i] is not None  # JSON has no infinity and NaN
            }
            digits = 3 if name == "nll" else 2
            return mean_std(values, digits=digits, planned=len(of_val))

        temperatures = {f"{final['temperatures'][1]:g}" for final in finals.values()}
        rows.append(
            (
                CELLS[cell].title,
                seeds(sweep, cell, of_val),
                column("nll", 0, 1.0),
                column("ece", 0, 100.0),
                ", ".join(sorted(temperatures)) or NONE,
                column("nll", 1, 1.0),
                column("ece", 1, 100.0),
            )
        )
    return TextTable(
        "Calibration on val",
        (
            "setting",
            "seeds",
            "NLL at T = 1 (nats)",
            "ECE at T = 1 (%)",
            "T of L_seg",
            "NLL at that T",
            "ECE at that T (%)",
        ),
        rows,
        "NLL: negative log-likelihood, averaged over the pixels that are not ignored; "
        "seeds for which it is infinite are left out, and n is the number of others. "
        f"ECE: expected calibration error, {BINS} bins of equal width. A network that "
        "was trained with L_seg at T_G can be expected to be calibrated at T_G, not at "
        "T = 1.",
    )


def discriminator(sweep: SweepResults, cells: Sequence[str]) -> TextTable:
    """Return D's outputs at the end of training, and how much its weights changed."""
    rows = []
    for cell in cells:
        changes = {
            seed: final["discriminator_change"]
            for seed, final in sweep.finished(cell).items()
            if "discriminator_change" in final
        }
        if not changes:
            continue  # a supervised setting, or no run has finished
        last = [
            mean_std(
                {seed: _mean_at_end(points) for seed, points in curves.items()},
                digits=3,
            )
            for curves in (
                sweep.curves(cell, "train/d_real"),
                sweep.curves(cell, "train/d_fake"),
                margins(sweep, cell),
                sweep.curves(cell, "train/loss_d"),
            )
        ]
        relative = [100 * x["relative"] for x in changes.values()]
        largest = max(x["largest"] for x in changes.values())
        rows.append(
            (
                CELLS[cell].title,
                seeds(sweep, cell, changes),
                *last,
                f"{np.mean(relative):.2g} %",
                f"{largest:.1e}",
            )
        )
    return TextTable(
        "The discriminator at the end of training",
        (
            "setting",
            "seeds",
            "D(X)",
            "D(p)",
            "D(X) − D(p)",
            "L_D",
            "weight change, relative",
            "largest weight change",
        ),
        rows,
        "D(X): mean output for the one-hot ground truth X. D(p): mean output for the "
        "segmenter's probabilities p. Both, and L_D, are averaged over the last "
        f"{100 * LAST:.0f} % of the logged values. D(X) − D(p) is computed per seed; "
        "it is above zero if D tells X from p. D(X) and D(p) by themselves also depend "
        "on D's random initialization. The least-squares L_D is 0.25 if D is 0.5 "
        "everywhere. Relative weight change: norm of the change divided by the norm of "
        "the initial weights, mean over seeds. Largest weight change: of any weight in "
        "any run; the initial weights have a standard deviation of 2.0e-02.",
    )


def margins(sweep: SweepResults, cell: str) -> dict[int, Series]:
    """Return D(X) - D(p) over the steps, by seed; zero if D cannot tell them apart."""
    real = sweep.curves(cell, "train/d_real")
    fake = sweep.curves(cell, "train/d_fake")
    curves = {}
    for seed in sorted(real.keys() & fake.keys()):
        fake_at = dict(fake[seed])
        points = [(s, x - fake_at[s]) for s, x in real[seed] if s in fake_at]
        if points:
            curves[seed] = points
    return curves


def per_class(sweep: SweepResults, cells: Sequence[str], split: str) -> TextTable:
    """Return each class's IoU for the first cell, and the others' differences."""
    reference, *others = cells
    base = class_ious(sweep, reference, split)
    ious = {cell: class_ious(sweep, cell, split) for cell in others}
    pairs = {cell: len(values.keys() & base.keys()) for cell, values in ious.items()}
    rows = []
    for i, name in enumerate(sweep.class_names):
        of_reference = present(base, i)
        row = [name, mean_std(of_reference)]
        for cell, values in ious.items():
            difference = statistics.paired_difference(present(values, i), of_reference)
            row.append(interval_over_seeds(difference, planned=pairs[cell]))
        rows.append(tuple(row))
    return TextTable(
        f"IoU by class, {split}",
        (
            "class",
            f"{CELLS[reference].title}, n = {len(base)}",
            *(f"Δ {CELLS[x].title}, n = {count}" for x, count in pairs.items()),
        ),
        rows,
        f"Δ: paired difference from “{CELLS[reference].title}” over the n seeds that "
        "both settings have finished. Seeds in which a class is in neither the labels "
        "nor the predictions are left out for that class. The intervals are not "
        "corrected for multiple comparisons: without any effect, one in twenty "
        "excludes zero by chance.",
    )


def class_ious(sweep: SweepResults, cell: str, split: str) -> dict[int, np.ndarray]:
    """Return the IoU of every class in percent, by seed; NaN for an absent class."""
    return {
        seed: 100 * metrics.iou_per_class(confusion.sum(axis=0))
        for seed, confusion in sweep.confusions(cell, split).items()
    }


def present(ious: dict[int, np.ndarray], i: int) -> dict[int, float]:
    """Return the IoU of class `i` by seed, without the seeds in which it is absent."""
    return {seed: iou[i] for seed, iou in ious.items() if not np.isnan(iou[i])}


def _mean_at_end(points: Series) -> float:
    count = max(1, round(LAST * len(points)))
    return float(np.mean([value for _, value in points[-count:]]))
