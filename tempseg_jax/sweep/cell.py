"""What a table of the ablation study consists of."""

from typing import NamedTuple


class Times(NamedTuple):
    """An override that multiplies the value of the config."""

    factor: float


Value = float | int | bool | str | None
"""The value of a config field."""

Overrides = dict[str, Value | Times]
"""New values by the names of config fields."""


class Cell(NamedTuple):
    """One setting of the ablation study, trained once with each seed."""

    title: str  # in the rows of the report's tables
    overrides: Overrides


class Contrast(NamedTuple):
    """A paired comparison of two cells that differ in one setting.

    The report gives the mean difference `cell` minus `against` over common seeds.
    """

    question: str  # answered by the difference
    cell: str
    against: str


class Table(NamedTuple):
    """One ablation: cells that are compared with the first one, the reference."""

    title: str
    cells: tuple[str, ...]
