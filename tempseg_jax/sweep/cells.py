"""The ablation study: the cells of the paper's tables, and control experiments.

A cell is one setting, that is one row of a table; a contrast is a paired comparison of
two cells. All cells are overrides of one config.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict


class Times(NamedTuple):
    """An override that multiplies the value of the config."""

    factor: float


class Cell(NamedTuple):
    """One setting of the ablation study, trained once with each seed."""

    title: str  # in the rows of the report's tables
    overrides: dict[str, float | bool | Times | None]  # values of fields of the config


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


_T1 = {
    "objective.temperature_g": 1.0,
    "objective.temperature_d": 1.0,
    "objective.temperature_seg": None,
    "objective.temperature_adv": None,
}
_SUPERVISED = _T1 | {"objective.alpha": 0.0}


def _decay(value: float) -> dict[str, float | None]:
    return _SUPERVISED | {"optimizer.weight_decay": value}


CELLS = {
    "baseline": Cell("Baseline (α = 0)", _SUPERVISED),
    "adversarial": Cell("Adversarial (T = 1)", _T1),
    "td0.5": Cell("T_D = 0.5", _T1 | {"objective.temperature_d": 0.5}),
    "td2": Cell("T_D = 2", _T1 | {"objective.temperature_d": 2.0}),
    "tg0.5": Cell("T_G = 0.5", _T1 | {"objective.temperature_g": 0.5}),
    "tg2": Cell("T_G = 2", _T1 | {"objective.temperature_g": 2.0}),
    "lambda0": Cell("λ = 0", _decay(0.0)),
    "lambda1e-4": Cell("λ = 1e-4", _decay(1e-4)),
    "lambda2e-4": Cell("λ = 2e-4", _decay(2e-4)),
    "lambda5e-4": Cell("λ = 5e-4", _decay(5e-4)),
    # Separates the effect of T_G in L_seg from that in L_adv.
    "seg_only": Cell(
        "T_G = 0.5 on L_seg, without D",
        _SUPERVISED | {"objective.temperature_seg": 0.5},
    ),
    "adv_only": Cell(
        "T_G = 0.5 on L_adv only",
        _T1 | {"objective.temperature_adv": 0.5},
    ),
    # The gradient of a loss of z / T is 1 / T times as large at equal probabilities.
    "rate_matched": Cell(
        "T = 1, learning rate × 2",
        _T1 | {"optimizer.learning_rate_g": Times(2.0)},
    ),
    "frozen_d": Cell(
        "Frozen D",
        _T1 | {"optimizer.learning_rate_d": 0.0},
    ),
    "learning_d": Cell(
        "D with learning rate 1e-4",
        _T1 | {"optimizer.learning_rate_d": 1e-4},
    ),
    "void_shown": Cell(
        "Without void masking",
        _T1 | {"objective.mask_void": False},
    ),
}

TABLES = {
    "1": Table(
        "Table 1: λ, without D", ("lambda0", "lambda1e-4", "lambda2e-4", "lambda5e-4")
    ),
    "2": Table("Table 2: T_D (T_G = 1)", ("baseline", "adversarial", "td0.5", "td2")),
    "3": Table("Table 3: T_G (T_D = 1)", ("baseline", "adversarial", "tg0.5", "tg2")),
    "4": Table("Table 4: cost of the discriminator", ("baseline", "adversarial")),
    "controls": Table(
        "Controls",
        (
            "baseline",
            "adversarial",
            "tg0.5",
            "seg_only",
            "adv_only",
            "rate_matched",
            "frozen_d",
            "learning_d",
            "void_shown",
        ),
    ),
}

CONTRASTS = (
    Contrast("Does a discriminator help at T = 1?", "adversarial", "baseline"),
    Contrast("Does T_G = 0.5 help with a discriminator?", "tg0.5", "adversarial"),
    Contrast("Does T_G = 0.5 help without a discriminator?", "seg_only", "baseline"),
    Contrast("Does a discriminator help at T_G = 0.5?", "tg0.5", "seg_only"),
    Contrast(
        "Is T_G = 0.5 better than twice the learning rate?", "tg0.5", "rate_matched"
    ),
    Contrast("Does T_G = 0.5 help on L_adv only?", "adv_only", "adversarial"),
    Contrast("Does training D have an effect?", "adversarial", "frozen_d"),
    Contrast("Does a higher learning rate of D help?", "learning_d", "adversarial"),
    Contrast("Does omitting void masking have an effect?", "void_shown", "adversarial"),
)
"""The planned comparisons; the table of controls has the cells that they need."""


def configure(config: ConfigDict, cell: str, *, seed: int) -> ConfigDict:
    """Return the config of one run: the sweep's, with overrides of the cell and seed.

    Args:
        config: The config of the sweep.
        cell: A key of `CELLS`.
        seed: The seed of the run.
    """
    result = config.copy_and_resolve_references()
    flat = {
        name: _get(config, name) * value.factor if isinstance(value, Times) else value
        for name, value in CELLS[cell].overrides.items()
    }
    result.update_from_flattened_dict(flat)
    result.seed = seed
    return result


def trained_as(config: ConfigDict, cell: str) -> str:
    """Return the first cell with the same config; equal cells are trained only once.

    If the weight decay of the config is 0, for example, `lambda0` is the baseline.
    """
    own = configure(config, cell, seed=0).to_dict()
    same = (c for c in CELLS if configure(config, c, seed=0).to_dict() == own)
    return next(same)


def choose(config: ConfigDict, tables: Sequence[str]) -> tuple[str, ...]:
    """Return the cells to train for these tables, each once, in the tables' order.

    Raises:
        ValueError: If a table does not exist, or `objective.alpha` of the config is 0.
    """
    for table in tables:
        if table not in TABLES:
            raise ValueError(
                f"--table: {table!r} is not one of {', '.join(TABLES)}; separate "
                "several tables by commas"
            )
    if not config.objective.alpha:
        raise ValueError(
            "objective.alpha: 0 in the config of the sweep would leave the adversarial "
            "cells without an adversary; set the α of these cells (the baseline always "
            "has 0)"
        )
    cells = (cell for table in tables for cell in TABLES[table].cells)
    return tuple(dict.fromkeys(trained_as(config, cell) for cell in cells))


def _get(config: ConfigDict, name: str) -> float:
    section, field = name.split(".")
    return config[section][field]
