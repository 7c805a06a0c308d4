"""Axes, error bars, curves with bands and legends, saved as SVG for the HTML page."""

import base64
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from tempseg_jax.sweep.cells import CELLS
from tempseg_jax.sweep.report.collect import Series
from tempseg_jax.sweep.report.statistics import Interval
from tempseg_jax.sweep.report.view import SUBSCRIPT

# The palette of Okabe & Ito (2008) is safe for color-blind readers. Line styles and
# markers differ too, so that the curves can be told apart without color.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (7, 2)))
MARKERS = "osD^vPX"
WIDTH = 4.2  # inches: about 400 pixels, the width of a phone


class Figure(NamedTuple):
    """An image for the page, with its caption."""

    source: str  # a data URI
    caption: str

    def svg(self) -> bytes:
        """Return the image as the contents of an SVG file."""
        return base64.b64decode(self.source.partition(",")[2])


def line_style(i: int) -> dict[str, Any]:
    """Return the color and the line style of the i-th curve."""
    return {"color": COLORS[i % len(COLORS)], "linestyle": STYLES[i % len(STYLES)]}


def new_axes(*, height: float) -> Axes:
    """Return the axes of a new figure; `height` is in inches."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = matplotlib.figure.Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def error_bar(
    axes: Axes,
    difference: Interval | None,
    y: float,
    *,
    color: str,
    marker: str,
    label: str,
    size: float,
) -> None:
    """Draw a difference and its confidence interval, horizontally at height `y`."""
    if difference is None:
        return
    if difference.has_bounds:
        ends = [difference.low, difference.high]
        axes.plot(ends, [y, y], color=color, linewidth=size / 3)
    axes.plot(
        difference.difference, y, marker, color=color, markersize=size, label=label
    )


def zero_line(axes: Axes) -> None:
    """Draw the vertical line of no difference."""
    axes.axvline(0, color="0.3", linewidth=0.8)


def row_labels(axes: Axes, labels: list[str]) -> None:
    """Name the rows 0, 1, 2, ... of a chart of error bars, from top to bottom."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def curves_with_bands(
    curves: Mapping[str, Mapping[int, Series]],
    label: str,
    *,
    scale: float,
    line: float | None,
) -> Figure | None:
    """Draw mean and standard deviation over seeds of each cell, over the steps.

    Args:
        curves: For each cell, the points of every seed. Cells without seeds are left
            out; without any curve there is no figure.
        label: Label of the vertical axis.
        scale: Factor for all values, such as 100 for percent.
        line: Height of a horizontal line for comparison; None for no line.
    """
    axes = new_axes(height=3.1)
    titles = []
    for i, (cell, seeds) in enumerate(curves.items()):
        if not seeds:
            continue
        steps, mean, std = mean_and_std(list(seeds.values()))
        axes.plot(
            steps,
            scale * mean,
            **line_style(i),
            linewidth=1.4,
            marker="o" if len(steps) == 1 else None,  # one point is no line
            label=f"{title(cell)}, n = {len(seeds)}",
        )
        low, high = scale * (mean - std), scale * (mean + std)
        color = line_style(i)["color"]
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        titles.append(CELLS[cell].title)
    if not titles:
        return None
    if line is not None:
        axes.axhline(line, color="0.6", linewidth=0.8)
    axes.set(xlabel="step", ylabel=subscripts(label))
    add_legend(axes)
    caption = f"{label}: mean (line) and standard deviation (band) over n seeds."
    return to_figure(axes, f"{caption} {', '.join(titles)}.")


def mean_and_std(seeds: list[Series]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the steps that all seeds have, and mean and standard deviation there."""
    steps = sorted(set.intersection(*({step for step, _ in x} for x in seeds)))
    values = np.array([[dict(x)[step] for step in steps] for x in seeds])
    std = values.std(axis=0, ddof=1) if len(seeds) > 1 else np.zeros(len(steps))
    return np.array(steps), values.mean(axis=0), std


def add_legend(axes: Axes) -> None:
    """Add a legend above the axes, where it hides nothing, with each label once."""
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    axes.figure.legend(
        by_label.values(),
        by_label.keys(),
        loc="outside upper left",
        ncols=1 if max(map(len, by_label)) > 30 else 2,
        frameon=False,
        fontsize=8,
    )


def title(cell: str) -> str:
    """Return a cell's title, with subscripts as matplotlib sets them."""
    return subscripts(CELLS[cell].title)


def subscripts(text: str) -> str:
    """Return text in which symbols such as `T_G` have a subscript in matplotlib."""
    return SUBSCRIPT.sub(r"$\1_{\\mathrm{\2}}$", text)


def to_figure(axes: Axes, caption: str) -> Figure:
    """Return the axes' figure as SVG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "report"}):
        axes.figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return Figure(f"data:image/svg+xml;base64,{data}", caption)
