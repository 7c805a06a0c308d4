"""A table as text: Markdown and HTML show the same words."""

import math
import re
from typing import NamedTuple

from tempseg_jax.evidence import statistics
from tempseg_jax.evidence.statistics import Interval

NONE = "–"
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
    """Return `difference [low, high]`, with an asterisk if it excludes zero."""
    if found is None:
        return NONE
    if not found.known:
        return signed(found.difference)
    star = " *" if found.excludes_zero else ""
    ends = f"[{signed(found.low)}, {signed(found.high)}]"
    return f"{signed(found.difference)} {ends}{star}"


def signed(value: float) -> str:
    """Return `+0.57` or `−0.57`."""
    return f"{value:+.2f}".replace("-", "−")
