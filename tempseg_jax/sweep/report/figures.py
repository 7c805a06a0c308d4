"""The figures of the report: forest plots, learning curves, reliability diagrams."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tempseg_jax.evaluation.calibration import BINS
from tempseg_jax.sweep.cells import CELLS, TABLES
from tempseg_jax.sweep.report import drawing, statistics
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.report.diagnostics import class_ious, margins, present
from tempseg_jax.sweep.report.drawing import COLORS, MARKERS, Figure
from tempseg_jax.sweep.report.statistics import Interval
from tempseg_jax.sweep.report.tables import bootstrap_difference, paired_difference

PANEL = 5
"""Largest number of cells in one figure, in addition to the reference."""
LEAST_PIXELS = 1 / 10_000
"""Fraction of the pixels that a bin needs to be drawn: the others are noise."""


ANSWERS = (
    ("D and T_G = 0.5", "tg0.5", "baseline"),
    ("T_G = 0.5 alone", "seg_only", "baseline"),
    ("D, added to T_G = 0.5", "tg0.5", "seg_only"),
    ("D alone", "adversarial", "baseline"),
    ("D alone, learning rate 1e-4", "learning_d", "baseline"),
)
"""What is added, and the cells with and without it."""


def answers(sweeps: Mapping[str, SweepResults], split: str) -> Figure | None:
    """Draw what D, the temperature and both add to the mIoU, over seeds.

    Args:
        sweeps: Each sweep by its name in the legend, which one sweep alone does not
            have.
        split: Whose mIoU to draw.
    """
    rows = {
        added: [_answer(sweep, split, *cells) for sweep in sweeps.values()]
        for added, *cells in ANSWERS
    }
    rows = {added: row for added, row in rows.items() if any(row)}
    if not rows:
        return None
    axes = drawing.new_axes(height=0.9 + (0.2 + 0.11 * len(sweeps)) * len(rows))
    apart = 0.7 / len(sweeps)
    for i, name in enumerate(sweeps):
        for y, row in enumerate(rows.values()):
            drawing.error_bar(
                axes,
                row[i],
                y + apart * (i - (len(sweeps) - 1) / 2),
                color=COLORS[(i + 1) % len(COLORS)],
                marker=MARKERS[i % len(MARKERS)],
                label=name,
                size=5.0,
            )
    drawing.zero_line(axes)
    drawing.row_labels(axes, [drawing.subscripts(added) for added in rows])
    axes.set_xlabel(f"Δ mIoU on {split} (points), 95 % intervals")
    if len(sweeps) > 1:
        drawing.add_legend(axes)
    return drawing.to_figure(
        axes,
        f"What D, the temperature and both add to the mIoU on {split}: paired "
        "differences over seeds with 95 % confidence intervals.",
    )


def _answer(
    sweep: SweepResults, split: str, with_it: str, without: str
) -> Interval | None:
    if sweep.cell(with_it) == sweep.cell(without):
        return None
    return paired_difference(sweep, with_it, without, split, "miou")


def forest(sweep: SweepResults, table: str, split: str) -> Figure | None:
    """Draw differences in mIoU from the table's first cell, with both intervals."""
    reference, *others = TABLES[table].cells
    rows = [
        (cell, paired_difference(sweep, cell, reference, split, "miou"))
        for cell in others
        if sweep.cell(cell) != sweep.cell(reference)
    ]
    rows = [(cell, difference) for cell, difference in rows if difference is not None]
    if not rows:
        return None
    axes = drawing.new_axes(height=0.9 + 0.42 * len(rows))
    for y, (cell, over_seeds) in enumerate(rows):
        over_images = bootstrap_difference(sweep, cell, reference, split)
        for difference, offset, color, marker, label in (
            (over_seeds, -0.12, COLORS[1], "o", "over seeds"),
            (over_images, 0.12, COLORS[2], "s", "over images"),
        ):
            drawing.error_bar(
                axes,
                difference,
                y + offset,
                color=color,
                marker=marker,
                label=label,
                size=5.0,
            )
    drawing.zero_line(axes)
    drawing.row_labels(axes, [drawing.title(cell) for cell, _ in rows])
    axes.set_xlabel("Δ mIoU (points), 95 % intervals")
    drawing.add_legend(axes)
    return drawing.to_figure(
        axes,
        f"{TABLES[table].title}, {split}: paired differences in mIoU from "
        f"“{CELLS[reference].title}”, with 95 % confidence intervals over seeds and "
        "over images (of these trained models).",
    )


def learning_curves(sweep: SweepResults, table: str) -> list[Figure]:
    """Draw L_seg and validation mIoU over the steps, mean and standard deviation.

    In a large table each setting has its own figures, together with the reference.
    """
    reference, *others = TABLES[table].cells
    groups = [(reference, *others)]
    if len(others) >= PANEL:
        trained = [x for x in others if sweep.finished(x)]
        groups = [(reference, x) for x in trained] or [(reference,)]
    metrics = (
        ("train/loss_seg", "L_seg at each setting's own T (nats)", 1.0),
        ("val/miou", "val mIoU (%)", 100.0),
    )
    drawn = [
        drawing.curves_with_bands(
            {x: sweep.curves(x, name) for x in group}, label, scale=scale, line=None
        )
        for name, label, scale in metrics
        for group in groups
    ]
    return [figure for figure in drawn if figure]


def discriminator(sweep: SweepResults, cells: Sequence[str]) -> list[Figure]:
    """Draw D(X), D(p), their difference, L_D and the share in L_semi over the steps."""
    cells = [x for x in cells if sweep.curves(x, "train/loss_d")]
    real, fake, loss, selected = (
        {x: sweep.curves(x, f"train/{name}") for x in cells}
        for name in ("d_real", "d_fake", "loss_d", "semi_share")
    )
    # L_D if D(X) = D(p) = 0.5, of the least-squares loss only.
    undecided = 0.25 if sweep.config.objective.adversary == "lsgan" else None
    quantities = (
        ({x: margins(sweep, x) for x in cells}, "mean D(X) − D(p)", 0.0),
        (real, "mean D(X)", None),
        (fake, "mean D(p)", None),
        (loss, "L_D", undecided),
        (selected, "share of the pixels in L_semi", None),
    )
    drawn = [
        drawing.curves_with_bands(
            {x: curves[x] for x in panel}, label, scale=1.0, line=line
        )
        for curves, label, line in quantities
        for panel in panels([x for x in cells if curves[x]])
    ]
    return [figure for figure in drawn if figure]


def classes(sweep: SweepResults, cells: Sequence[str], split: str) -> list[Figure]:
    """Draw differences in every class's IoU from the first cell, over seeds."""
    reference, *others = cells
    finished = [x for x in others if sweep.finished(x)]
    drawn = [_classes(sweep, reference, panel, split) for panel in panels(finished)]
    return [figure for figure in drawn if figure]


def _classes(
    sweep: SweepResults, reference: str, others: Sequence[str], split: str
) -> Figure | None:
    base = class_ious(sweep, reference, split)
    count = len(sweep.class_names)
    axes = drawing.new_axes(height=0.9 + 0.28 * count)
    any_drawn = False
    for i, cell in enumerate(others):
        values = class_ious(sweep, cell, split)
        offset = 0.22 * (i - (len(others) - 1) / 2)
        for k in range(count):
            difference = statistics.paired_difference(
                present(values, k), present(base, k)
            )
            drawing.error_bar(
                axes,
                difference,
                k + offset,
                color=COLORS[1 + i],
                marker=MARKERS[1 + i],
                label=drawing.title(cell),
                size=3.5,
            )
            any_drawn |= difference is not None
    if not any_drawn:
        return None
    drawing.zero_line(axes)
    drawing.row_labels(axes, sweep.class_names)
    axes.set_xlabel("Δ IoU (points), 95 % intervals over seeds")
    drawing.add_legend(axes)
    return drawing.to_figure(
        axes,
        f"IoU by class, {split}: paired differences from “{CELLS[reference].title}”, "
        "with 95 % confidence intervals over seeds.",
    )


def reliability(sweep: SweepResults, cells: Sequence[str]) -> list[Figure]:
    """Draw accuracy against confidence on val at T = 1, over all seeds.

    The first cell is drawn in every figure, for comparison.
    """
    reference, *others = (x for x in cells if x == cells[0] or sweep.finished(x))
    drawn = [
        _reliability(sweep, [reference, *panel]) for panel in panels(others) or [[]]
    ]
    return [figure for figure in drawn if figure]


def _reliability(sweep: SweepResults, cells: Sequence[str]) -> Figure | None:
    axes = drawing.new_axes(height=3.6)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    any_drawn = False
    for i, cell in enumerate(cells):
        measurements = sweep.measurements(cell, "val").values()
        if not measurements:
            continue
        pixels, correct, confidence = sum(x.bins[0] for x in measurements).T
        shown = pixels > LEAST_PIXELS * pixels.sum()
        axes.plot(
            (confidence / np.maximum(pixels, 1))[shown],
            (correct / np.maximum(pixels, 1))[shown],
            **drawing.line_style(i),
            marker=MARKERS[i % len(MARKERS)],
            markersize=3.5,
            label=drawing.title(cell),
        )
        any_drawn = True
    if not any_drawn:
        return None
    axes.set(xlabel="confidence at T = 1", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    drawing.add_legend(axes)
    return drawing.to_figure(
        axes,
        f"Reliability diagram on val at T = 1, {BINS} bins. Below the diagonal a "
        "network is overconfident, above it underconfident.",
    )


def panels(cells: Sequence[str]) -> list[Sequence[str]]:
    """Distribute cells evenly over as few figures as hold at most `PANEL` each."""
    count = math.ceil(len(cells) / PANEL)
    size = math.ceil(len(cells) / count) if count else 1
    return [cells[i : i + size] for i in range(0, len(cells), size)]
