"""A table as text: Markdown and HTML show the same words."""

import math
import re
from typing import NamedTuple

from tempseg_jax.sweep.report import statistics
from tempseg_jax.sweep.report.statistics import Interval

NONE = "–"
STAR = " *"
"""What an interval over seeds that excludes zero is marked with."""
SUBSCRIPT = re.compile(r"\b([TL])_(G|D|seg|adv)\b")
"""Symbols of the paper as the tables write them."""


class View(NamedTuple):
    """A table to show; an empty one says in `note` what it lacks."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


def markdown(view: View) -> str:
    """Return a table as GitHub shows it."""
    lines = [f"### {view.title}", ""]
    if view.rows:
        lines.append("| " + " | ".join(view.header) + " |")
        lines.append("| --- " + "| ---: " * (len(view.header) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in view.rows]
        lines.append("")
    return "\n".join([*lines, view.note, ""] if view.note else lines)


def spread(values: dict[int, float], *, digits: int = 2) -> str:
    """Return `mean ± sd`, or the one value there is."""
    if not values:
        return NONE
    found = statistics.spread(list(values.values()))
    rounded = round(found.mean, digits) + 0.0  # no minus sign before zero
    mean = f"{rounded:.{digits}f}".replace("-", "−")
    return mean if math.isnan(found.sd) else f"{mean} ± {found.sd:.{digits}f}"


def interval(found: Interval | None) -> str:
    """Return `difference [low, high]`, or the difference alone."""
    if found is None:
        return NONE
    if not found.known:
        return signed(found.difference)
    return f"{signed(found.difference)} [{signed(found.low)}, {signed(found.high)}]"


def over_seeds(found: Interval | None, *, planned: int) -> str:
    """Return the interval, ` *` if it excludes zero, `, n = 4` if seeds are missing."""
    if found is None:
        return NONE
    star = STAR * found.excludes_zero
    count = f", n = {found.count}" if found.count < planned else ""
    return f"{interval(found)}{star}{count}"


def signed(value: float) -> str:
    """Return `+0.57` or `−0.57`; zero has a plus sign."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def probability(p: float | None) -> str:
    """Return a p-value with three digits after the point."""
    if p is None:
        return NONE
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
