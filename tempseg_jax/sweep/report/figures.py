"""The report's figures, as SVG: each as wide as a phone, told apart without color."""

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from tempseg_jax.evaluation.calibration import BINS
from tempseg_jax.sweep.cells import CELLS, TABLES
from tempseg_jax.sweep.report import statistics
from tempseg_jax.sweep.report.collect import Evidence, Series
from tempseg_jax.sweep.report.diagnostics import class_ious, margins
from tempseg_jax.sweep.report.tables import bootstrapped, paired
from tempseg_jax.sweep.report.view import SUBSCRIPT

# Okabe & Ito (2008): told apart with any color vision; styles repeat the difference.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (7, 2)))
MARKERS = "osD^vPX"
WIDTH = 4.2  # inches, so about 400 pixels
CROWDED = 5  # cells beside the first one; more are drawn in panels of their own


class Figure(NamedTuple):
    """A picture for the page."""

    source: str  # a data URI
    caption: str


def forest(evidence: Evidence, table: str, split: str) -> Figure | None:
    """Differences in mIoU from the table's first cell, with both intervals."""
    reference, *others = TABLES[table].cells
    rows = [
        (cell, paired(evidence, cell, reference, split, "miou"))
        for cell in others
        if evidence.cell(cell) != evidence.cell(reference)
    ]
    rows = [(cell, found) for cell, found in rows if found is not None]
    if not rows:
        return None
    canvas, axes = _axes(height=0.9 + 0.42 * len(rows))
    for y, (cell, over_seeds) in enumerate(rows):
        _error_bar(axes, over_seeds, y - 0.12, COLORS[1], "o", "over seeds", size=5.0)
        over_images = bootstrapped(evidence, cell, reference, split)
        _error_bar(axes, over_images, y + 0.12, COLORS[2], "s", "over images", size=5.0)
    axes.axvline(0, color="0.3", lw=0.8)
    axes.set_yticks(range(len(rows)), [_title(cell) for cell, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("Δ mIoU (points), 95 % intervals")
    _legend(canvas, axes)
    return _figure(
        canvas,
        f"{TABLES[table].title}, {split}: differences from “{CELLS[reference].title}”. "
        "Over seeds: what other seeds would give; over images: what other images "
        "would, with these models.",
    )


def learning_curves(evidence: Evidence, table: str) -> list[Figure]:
    """L_seg and validation mIoU over the steps: mean and band of one deviation."""
    reference, *others = TABLES[table].cells
    groups = [(reference, *others)]
    if len(others) >= CROWDED:
        trained = [x for x in others if evidence.finished(x)]
        groups = [(reference, x) for x in trained] or [(reference,)]
    wanted = (
        ("train/loss_seg", "L_seg at each setting's T (nats)", 1.0),
        ("val/miou", "val mIoU (%)", 100.0),
    )
    found = [
        _curves(
            {x: evidence.curves(x, name) for x in group}, label, scale=scale, line=None
        )
        for name, label, scale in wanted
        for group in groups
    ]
    return [figure for figure in found if figure]


def discriminator(evidence: Evidence, cells: Sequence[str]) -> list[Figure]:
    """D(X) − D(p) of each seed, D(X), D(p) and L_D over the steps."""
    cells = [x for x in cells if evidence.curves(x, "train/loss_d")]
    real, fake, loss = (
        {x: evidence.curves(x, f"train/{name}") for x in cells}
        for name in ("d_real", "d_fake", "loss_d")
    )
    wanted = (
        ({x: margins(evidence, x) for x in cells}, "mean D(X) − D(p)", 0.0),
        (real, "mean D(X)", None),
        (fake, "mean D(p)", None),
        (loss, "L_D", 0.25),
    )
    found = [
        _curves({x: curves[x] for x in panel}, label, scale=1.0, line=line)
        for curves, label, line in wanted
        for panel in _panels(cells)
    ]
    return [figure for figure in found if figure]


def classes(evidence: Evidence, cells: Sequence[str], split: str) -> list[Figure]:
    """Differences in every class's IoU from the first cell, over seeds."""
    reference, *others = cells
    finished = [x for x in others if evidence.finished(x)]
    found = [_classes(evidence, reference, x, split) for x in _panels(finished)]
    return [figure for figure in found if figure]


def _classes(
    evidence: Evidence, reference: str, others: Sequence[str], split: str
) -> Figure | None:
    base = class_ious(evidence, reference, split)
    count = len(evidence.class_names)
    canvas, axes = _axes(height=0.9 + 0.28 * count)
    drawn = False
    for i, cell in enumerate(others):
        values = class_ious(evidence, cell, split)
        offset = 0.22 * (i - (len(others) - 1) / 2)
        for k in range(count):
            found = statistics.paired(
                {s: x[k] for s, x in values.items() if not np.isnan(x[k])},
                {s: x[k] for s, x in base.items() if not np.isnan(x[k])},
            )
            style = COLORS[1 + i], MARKERS[1 + i], _title(cell)
            _error_bar(axes, found, k + offset, *style, size=3.5)
            drawn |= found is not None
    if not drawn:
        return None
    axes.axvline(0, color="0.3", lw=0.8)
    axes.set_yticks(range(count), evidence.class_names)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlabel("Δ IoU (points), 95 % intervals over seeds")
    _legend(canvas, axes)
    return _figure(canvas, f"{split}: IoU by class, less “{CELLS[reference].title}”.")


def reliability(evidence: Evidence, cells: Sequence[str]) -> list[Figure]:
    """Accuracy against confidence at T = 1 on val, all seeds together.

    Where it takes several panels, each has the first cell to compare with.
    """
    reference, *others = (x for x in cells if x == cells[0] or evidence.finished(x))
    panels = _panels(others) or [[]]
    found = [_reliability(evidence, [reference, *panel]) for panel in panels]
    return [figure for figure in found if figure]


def _panels(cells: Sequence[str]) -> list[Sequence[str]]:
    """Share cells evenly among as few panels as hold `CROWDED` each."""
    count = math.ceil(len(cells) / CROWDED)
    size = math.ceil(len(cells) / count) if count else 1
    return [cells[i : i + size] for i in range(0, len(cells), size)]


def _reliability(evidence: Evidence, cells: Sequence[str]) -> Figure | None:
    canvas, axes = _axes(height=3.6)
    axes.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    drawn = False
    for i, cell in enumerate(cells):
        found = evidence.measurements(cell, "val").values()
        if not found:
            continue
        pixels, right, confidence = sum(x.bins[0] for x in found).T
        full = pixels > pixels.sum() / 10_000  # the rest is noise
        axes.plot(
            (confidence / np.maximum(pixels, 1))[full],
            (right / np.maximum(pixels, 1))[full],
            color=COLORS[i % len(COLORS)],
            ls=STYLES[i % len(STYLES)],
            marker=MARKERS[i % len(MARKERS)],
            ms=3.5,
            label=_title(cell),
        )
        drawn = True
    if not drawn:
        return None
    axes.set(xlabel="confidence at T = 1", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    _legend(canvas, axes)
    return _figure(
        canvas,
        f"Reliability on val at T = 1, {BINS} bins: below the diagonal a network is "
        "too sure of itself, above it not sure enough.",
    )


def _curves(
    curves: dict[str, dict[int, Series]],
    label: str,
    *,
    scale: float,
    line: float | None,
) -> Figure | None:
    """Draw each cell's mean and band; `curves` has its seeds."""
    canvas, axes = _axes(height=3.1)
    drawn = []
    for i, (cell, seeds) in enumerate(curves.items()):
        if not seeds:
            continue
        steps, mean, sd = _band(list(seeds.values()))
        color, style = COLORS[i % len(COLORS)], STYLES[i % len(STYLES)]
        label_ = f"{_title(cell)}, n = {len(seeds)}"
        look = {"color": color, "ls": style, "lw": 1.4}
        if len(steps) == 1:  # a line of one point would not show
            look["marker"] = "o"
        axes.plot(steps, scale * mean, label=label_, **look)
        low, high = scale * (mean - sd), scale * (mean + sd)
        axes.fill_between(steps, low, high, color=color, alpha=0.15, lw=0)
        drawn.append(CELLS[cell].title)
    if not drawn:
        return None
    if line is not None:
        axes.axhline(line, color="0.6", lw=0.8)
    axes.set(xlabel="step", ylabel=_subscripts(label))
    _legend(canvas, axes)
    return _figure(
        canvas,
        f"{label}: mean and standard deviation over n seeds. {', '.join(drawn)}.",
    )


def _band(seeds: list[Series]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard deviation at the steps that every seed has."""
    steps = sorted(set.intersection(*({step for step, _ in x} for x in seeds)))
    values = np.array([[dict(x)[step] for step in steps] for x in seeds])
    sd = values.std(axis=0, ddof=1) if len(seeds) > 1 else np.zeros(len(steps))
    return np.array(steps), values.mean(axis=0), sd


def _error_bar(
    axes: Axes,
    found: statistics.Interval | None,
    y: float,
    color: str,
    marker: str,
    label: str,
    *,
    size: float,
) -> None:
    if found is None:
        return
    if found.known:
        axes.plot([found.low, found.high], [y, y], color=color, lw=size / 3)
    axes.plot(found.difference, y, marker, color=color, ms=size, label=label)


def _axes(*, height: float) -> tuple[Canvas, Axes]:
    with matplotlib.rc_context({"font.size": 9}):
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        axes = canvas.add_subplot()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return canvas, axes


def _legend(canvas: Canvas, axes: Axes) -> None:
    """Above the axes, where it hides nothing; each name once."""
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    columns = 1 if max(map(len, named)) > 30 else 2
    canvas.legend(
        named.values(),
        named.keys(),
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=8,
    )


def _title(cell: str) -> str:
    return _subscripts(CELLS[cell].title)


def _subscripts(text: str) -> str:
    return SUBSCRIPT.sub(r"$\1_{\\mathrm{\2}}$", text)


def _figure(canvas: Canvas, caption: str) -> Figure:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "report"}):
        canvas.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return Figure(f"data:image/svg+xml;base64,{data}", caption)
