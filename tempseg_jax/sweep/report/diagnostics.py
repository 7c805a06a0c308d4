"""Why a setting scores as it does: gap, calibration, discriminator, classes."""

import math
from collections.abc import Sequence

import numpy as np

from tempseg_jax.evaluation import metrics
from tempseg_jax.sweep.cells import CELLS
from tempseg_jax.sweep.report import statistics
from tempseg_jax.sweep.report.collect import Evidence, Series
from tempseg_jax.sweep.report.tables import PAIRS, seeds
from tempseg_jax.sweep.report.view import NONE, View, over_seeds, spread

LAST = 0.1
"""Of the logged lines: D's last outputs are the mean of these."""


def gap(evidence: Evidence, cells: Sequence[str]) -> View:
    """Is T a regularizer? Then the gap between train and val must shrink."""

    def gaps(cell: str) -> dict[int, float]:
        train = evidence.scores(cell, "train", "miou")
        val = evidence.scores(cell, "val", "miou")
        return {seed: train[seed] - val[seed] for seed in train.keys() & val.keys()}

    reference = cells[0]
    rows = []
    for cell in cells:
        own = gaps(cell)
        same = cell == reference
        difference = None if same else statistics.paired(own, gaps(reference))
        rows.append(
            (
                CELLS[cell].title,
                seeds(evidence, cell, evidence.scores(cell, "val", "miou")),
                spread(evidence.scores(cell, "train", "miou")),
                spread(evidence.scores(cell, "val", "miou")),
                spread(own),
                over_seeds(difference, planned=evidence.scope.seeds),
            )
        )
    return View(
        "Train–val gap",
        ("setting", "seeds", "mIoU train", "mIoU val", "gap", "Δ gap (seeds)"),
        rows,
        "Train: always the same images, evenly spaced over the split, whole, without "
        "augmentation, scored as val is. A regularizer should make the gap smaller: "
        f"Δ gap below zero. Δ {PAIRS}.",
    )


def calibration(evidence: Evidence, cells: Sequence[str]) -> View:
    """Negative log-likelihood and calibration error on val, at two temperatures."""
    rows = []
    for cell in cells:
        finals = evidence.finished(cell)
        found = {seed: final["splits"]["val"] for seed, final in finals.items()}

        def column(name: str, i: int, scale: float, found: dict = found) -> str:
            values = {
                seed: scale * v[name][i]
                for seed, v in found.items()
                if v[name][i] is not None
            }
            return spread(values, digits=3 if name == "nll" else 2)

        at = {f"{final['temperatures'][1]:g}" for final in finals.values()}
        rows.append(
            (
                CELLS[cell].title,
                seeds(evidence, cell, found),
                column("nll", 0, 1.0),
                column("ece", 0, 100.0),
                ", ".join(sorted(at)) or NONE,
                column("nll", 1, 1.0),
                column("ece", 1, 100.0),
            )
        )
    return View(
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
        "A network trained with L_seg at T_G is calibrated, if at all, at T_G. ECE: 15 "
        "bins of equal width.",
    )


def discriminator(evidence: Evidence, cells: Sequence[str]) -> View:
    """What D says at the end, and how far it has moved from its random start."""
    rows = []
    for cell in cells:
        changes = {
            seed: final["discriminator_change"]
            for seed, final in evidence.finished(cell).items()
            if "discriminator_change" in final
        }
        if not changes and evidence.finished(cell):
            continue  # supervised
        last = [
            spread(
                {
                    seed: float(np.mean([v for _, v in _tail(points)]))
                    for seed, points in curves.items()
                },
                digits=3,
            )
            for curves in (
                evidence.curves(cell, "train/d_real"),
                evidence.curves(cell, "train/d_fake"),
                margins(evidence, cell),
                evidence.curves(cell, "train/loss_d"),
            )
        ]
        relative = {seed: 100 * x["relative"] for seed, x in changes.items()}
        largest = max((x["largest"] for x in changes.values()), default=math.nan)
        moved = f"{largest:.1e}" if changes else NONE
        mean = f"{np.mean([*relative.values()]):.2g} %" if changes else NONE
        count = seeds(evidence, cell, changes)
        rows.append((CELLS[cell].title, count, *last, mean, moved))
    return View(
        "The discriminator at the end of training",
        (
            "setting",
            "seeds",
            "D(X)",
            "D(p)",
            "D(X) − D(p)",
            "L_D",
            "moved, of initial norm",
            "largest move of a weight",
        ),
        rows,
        "D(X) − D(p), taken seed by seed, is above zero where D tells X from p as it "
        "is taught to; what it says to both varies with its random start. L_D is 0.25 "
        "where D says 0.5 to everything. Initial weights have a standard deviation of "
        "2.0e-02.",
    )


def margins(evidence: Evidence, cell: str) -> dict[int, Series]:
    """Return D(X) − D(p) over the steps, by seed: zero where D tells nothing."""
    real = evidence.curves(cell, "train/d_real")
    fake = evidence.curves(cell, "train/d_fake")
    found = {}
    for seed in real.keys() & fake.keys():
        at = dict(fake[seed])
        found[seed] = [(step, x - at[step]) for step, x in real[seed] if step in at]
    return {seed: points for seed, points in sorted(found.items()) if points}


def per_class(evidence: Evidence, cells: Sequence[str], split: str) -> View:
    """IoU of every class in the reference, and the differences from it."""
    reference, *others = cells
    base = class_ious(evidence, reference, split)
    ious = {cell: class_ious(evidence, cell, split) for cell in others}
    pairs = {cell: len(values.keys() & base.keys()) for cell, values in ious.items()}
    rows = []
    for i, name in enumerate(evidence.class_names):
        own = {seed: iou[i] for seed, iou in base.items() if not np.isnan(iou[i])}
        row = [name, spread(own)]
        for cell, values in ious.items():
            there = {s: iou[i] for s, iou in values.items() if not np.isnan(iou[i])}
            difference = statistics.paired(there, own)
            row.append(over_seeds(difference, planned=pairs[cell]))
        rows.append(tuple(row))
    return View(
        f"IoU by class, {split}",
        (
            "class",
            f"{CELLS[reference].title}, n = {len(base)}",
            *(f"Δ {CELLS[x].title}, n = {count}" for x, count in pairs.items()),
        ),
        rows,
        "Δ over the n seeds that both have; of a class that is in no image of some, "
        "fewer. Of so many intervals one in twenty excludes zero by chance.",
    )


def class_ious(evidence: Evidence, cell: str, split: str) -> dict[int, np.ndarray]:
    """Return each class's IoU in per cent, by seed; NaN where it is absent."""
    return {
        seed: 100 * metrics.iou_per_class(confusion.sum(axis=0))
        for seed, confusion in evidence.confusions(cell, split).items()
    }


def _tail(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return points[-max(1, round(LAST * len(points))) :]
