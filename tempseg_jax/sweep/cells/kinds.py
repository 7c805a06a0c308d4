"""What a sweep compares: cells, tables of cells, and contrasts of two cells."""

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


T1 = {
    "objective.temperature_schedule": "constant",
    "objective.temperature_end": 1.0,
    "objective.temperature_g": 1.0,
    "objective.temperature_d": 1.0,
    "objective.temperature_seg": None,
    "objective.temperature_adv": None,
}
SUPERVISED = T1 | {"objective.alpha": 0.0}

# D learns at a thousand times the paper's rate for FCN-8s.
LEARNING_D = T1 | {"optimizer.learning_rate_d": 1e-4}
