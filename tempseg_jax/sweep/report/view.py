"""Tables as text: each cell is formatted once, for both Markdown and HTML."""

import math
import re
from typing import NamedTuple

from tempseg_jax.sweep.report import statistics
from tempseg_jax.sweep.report.statistics import Interval

NONE = "–"
STAR = " *"
"""Marks a confidence interval over seeds that excludes zero."""
SUBSCRIPT = re.compile(r"\b([TL])_(G|D|seg|adv)\b")
"""The paper's symbols as the tables write them, such as `T_G`."""


class TextTable(NamedTuple):
    """A table of formatted text; without rows, only its title and note are shown."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


def to_markdown(table: TextTable) -> str:
    """Return a heading, the table in GitHub's Markdown, and its note."""
    lines = [f"### {table.title}", ""]
    if table.rows:
        lines.append(_row(table.header))
        lines.append("| --- " + "| ---: " * (len(table.header) - 1) + "|")
        lines += map(_row, table.rows)
        lines.append("")
    return "\n".join([*lines, table.note, ""] if table.note else lines)


def _row(cells: tuple[str, ...]) -> str:
    """Return a row, in which a `|` of a name does not end its cell."""
    return "| " + " | ".join(x.replace("|", r"\|") for x in cells) + " |"


def mean_std(
    values: dict[int, float], *, digits: int = 2, planned: int | None = None
) -> str:
    """Return `mean ± standard deviation` over seeds, or the value of a single seed.

    The number of seeds (`, n = 4`) is added if it is less than `planned`.
    """
    if not values:
        return NONE
    mean, std = statistics.mean_std(list(values.values()))
    rounded = round(mean, digits) + 0.0  # no minus sign before zero
    text = f"{rounded:.{digits}f}".replace("-", "−")
    count = f", n = {len(values)}" if planned and len(values) < planned else ""
    return f"{text}{count}" if math.isnan(std) else f"{text} ± {std:.{digits}f}{count}"


def interval(difference: Interval | None) -> str:
    """Return `difference [low, high]`, or the difference if there is no interval."""
    if difference is None:
        return NONE
    value = signed(difference.difference)
    if not difference.has_bounds:
        return value
    return f"{value} [{signed(difference.low)}, {signed(difference.high)}]"


def interval_over_seeds(difference: Interval | None, *, planned: int) -> str:
    """Return the interval, with ` *` if it excludes zero, and the number of seeds.

    The number of seeds (`, n = 4`) is added if it is less than `planned`.
    """
    if difference is None:
        return NONE
    star = STAR * difference.excludes_zero
    count = f", n = {difference.count}" if difference.count < planned else ""
    return f"{interval(difference)}{star}{count}"


def signed(value: float) -> str:
    """Return `+0.57` or `−0.57`, and `−0.00` for −0.003; zero has a plus sign.

    A bound of an interval keeps its sign, which says whether the interval holds zero.
    """
    return f"{value + 0.0:+.2f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """Return a p-value with three decimals."""
    if p is None:
        return NONE
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
