"""The cells that a sweep trains, and the config of each."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ml_collections import ConfigDict

from tempseg_jax.sweep.cells.kinds import Overrides, Times, Value
from tempseg_jax.sweep.cells.table import CELLS, TABLES

NO_RATES: Mapping[str, float] = MappingProxyType({})
_RATE = "optimizer.learning_rate_g"


def configure(
    config: ConfigDict, cell: str, *, seed: int, rates: Mapping[str, float] = NO_RATES
) -> ConfigDict:
    """Return the config of one run: the sweep's, with overrides of the cell and seed.

    Args:
        config: The config of the sweep.
        cell: A key of `CELLS`.
        seed: The seed of the run.
        rates: Factors on the segmenter's learning rate, by cell; 1 for other cells.
    """
    result = config.copy_and_resolve_references()
    overrides = _overrides(cell, rates)
    flat = {name: _value(config, overrides, name) for name in overrides}
    result.update_from_flattened_dict(flat)
    result.seed = seed
    return result


def trained_as(
    config: ConfigDict, cell: str, rates: Mapping[str, float] = NO_RATES
) -> str:
    """Return the first cell with the same config; equal cells are trained only once.

    If the weight decay of the config is 0, for example, `lambda0` is the baseline.
    """
    own = _overrides(cell, rates)

    def same(other: str) -> bool:
        its = _overrides(other, rates)
        return all(
            _value(config, own, name) == _value(config, its, name)
            for name in own.keys() | its.keys()
        )

    return next(filter(same, CELLS))


def choose(
    config: ConfigDict, tables: Sequence[str], rates: Mapping[str, float] = NO_RATES
) -> tuple[str, ...]:
    """Return the cells to train for these tables, each once, in the tables' order.

    Raises:
        ValueError: If a table or a cell of `rates` does not exist, or
            `objective.alpha` of the config is 0.
    """
    for table in tables:
        if table not in TABLES:
            raise ValueError(
                f"--table: {table!r} is not one of {', '.join(TABLES)}; separate "
                "several tables by commas"
            )
    for cell in rates:
        if cell not in CELLS:
            raise ValueError(
                f"--rates: {cell!r} is not a cell; choose from {', '.join(CELLS)}"
            )
    if not config.objective.alpha:
        raise ValueError(
            "objective.alpha: 0 in the config of the sweep would leave the adversarial "
            "cells without an adversary; set the α of these cells (the baseline always "
            "has 0)"
        )
    cells = (cell for table in tables for cell in TABLES[table].cells)
    return tuple(dict.fromkeys(trained_as(config, cell, rates) for cell in cells))


def _overrides(cell: str, rates: Mapping[str, float]) -> Overrides:
    """Return the overrides of a cell, its rate multiplied by its factor of `rates`."""
    overrides = CELLS[cell].overrides
    if cell not in rates:
        return overrides
    before = overrides.get(_RATE, Times(1.0))
    return overrides | {_RATE: Times(before.factor * rates[cell])}


def _value(config: ConfigDict, overrides: Overrides, name: str) -> Value:
    """Return the value of a field after the overrides."""
    section, field = name.split(".")
    own = config[section][field]
    value = overrides.get(name, own)
    return own * value.factor if isinstance(value, Times) else value
