"""The scope of a sweep, stored in `sweep.json`: which tables, seeds and splits."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
from ml_collections import ConfigDict

from tempseg_jax.data.catalog import Split
from tempseg_jax.io.json_files import read_json, write_json
from tempseg_jax.sweep import cells
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir import saved_config

_ABOUT = ("steps", "dataset", "class_names", "palette")
"""The fields of `sweep.json` besides the scope."""


class Scope(NamedTuple):
    """The runs of a sweep and the splits they are evaluated on.

    A later start in the same folder may add tables, cells and seeds, but not change the
    other fields.
    """

    tables: tuple[str, ...]  # keys of `cells.TABLES`
    seeds: int  # runs of each cell, with seeds from first_seed
    test_split: str  # evaluated once, at the end of each run; "" for none
    train_images: int | None  # for the train-val gap; None: as many as val has
    first_seed: int = 0
    rates: Mapping[str, float] = cells.NO_RATES  # factors on the rate of these cells
    only: tuple[str, ...] = ()  # the cells of the tables to train; all if empty

    def runs(self, config: ConfigDict) -> list[Run]:
        """List the runs, all cells with one seed before the next seed.

        The finished part of a sweep can then be compared in pairs.

        Raises:
            ValueError: If a table or a cell does not exist, or `objective.alpha` of the
                config is 0.
        """
        chosen = cells.choose(config, self.tables, self.rates)
        self._check_cells()
        if self.only:
            named = {cells.trained_as(config, x, self.rates) for x in self.only}
            chosen = tuple(x for x in chosen if x in named)
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return [Run(cell, seed) for seed in seeds for cell in chosen]

    def _check_cells(self) -> None:
        known = dict.fromkeys(x for t in self.tables for x in cells.TABLES[t].cells)
        for cell in self.only:
            if cell not in known:
                raise ValueError(
                    f"--cells: {cell!r} is not a cell of these tables; they have "
                    f"{', '.join(known)}"
                )


def _as_flag(field: str, value: Any) -> str:
    """Return `with --rates=tg0.5:0.5`, or `without --rates` for an empty value."""
    if isinstance(value, Mapping):
        value = ",".join(f"{cell}:{factor:g}" for cell, factor in value.items())
    if value in ("", None):
        return f"without --{field}"
    return f"with --{field}={value}"


def read_scope(folder: str | Path) -> tuple[Scope, dict]:
    """Return the scope of a sweep, and the other fields of its `sweep.json`.

    Raises:
        FileNotFoundError: If the folder holds no sweep.
        ValueError: If its `sweep.json` is damaged.
    """
    path = Path(folder) / "sweep.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file, so {folder} is not the folder of a sweep; run "
            "scripts/sweep.py with --workdir first, or give another folder"
        )
    remedy = "restore the file, or choose another folder for the sweep"
    saved = read_json(path, remedy=remedy)
    try:
        scope = saved.pop("scope")
        about = {field: saved[field] for field in _ABOUT}
        lists = {name: tuple(scope.get(name, ())) for name in ("tables", "only")}
        return Scope(**scope | lists), about
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: it does not describe a sweep ({error!s:.80}); {remedy}"
        ) from None


def parse_rates(entries: Sequence[str]) -> dict[str, float]:
    """Return the factors of entries like `tg0.5:2`, by cell.

    Raises:
        ValueError: If an entry is not of this form, or its factor is not positive.
    """
    rates = {}
    for entry in entries:
        cell, _, text = entry.partition(":")
        if cell in rates:
            raise ValueError(f"--rates: {cell!r} is named twice; give one factor")
        try:
            rates[cell] = float(text)
        except ValueError:
            rates[cell] = math.nan
        if not 0 < rates[cell] < math.inf:
            raise ValueError(
                f"--rates: {entry!r} is not cell:factor with a positive factor, for "
                "example tg0.5:2"
            )
    return rates


def claim(
    folder: Path, scope: Scope, config: ConfigDict, *, val: Split, steps: int
) -> None:
    """Write `config.json` and `sweep.json`, or add tables, cells and seeds to it.

    Args:
        folder: Folder of the sweep.
        scope: The scope that the sweep is started or resumed with.
        config: The config of the sweep.
        val: The validation split, which names the dataset and its classes.
        steps: Number of steps of one run.

    Raises:
        ValueError: If the sweep in this folder has another config, or other splits,
            seeds, rates, steps or data.
    """
    about = {
        "steps": steps,
        "dataset": val.dataset,
        "class_names": list(val.class_names),
        "palette": val.palette.tolist(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock"):  # another process may start, too
        saved_config.claim(
            folder, config, allow_change=False, remedy="choose another --workdir"
        )
        merge(folder, scope, about)


def merge(folder: Path, scope: Scope, about: Mapping[str, Any]) -> None:
    """Write `sweep.json`, or add the tables, cells and seeds of this scope to it.

    Args:
        folder: Folder of the sweep.
        scope: Its scope, or a scope to add to it.
        about: The other fields, as `read_scope` returns them.

    Raises:
        ValueError: If the sweep in this folder has other splits, seeds, rates, steps
            or data.
    """
    path = folder / "sweep.json"
    if path.exists():
        scope = _merged(scope, about, path)
    saved = {"scope": scope._asdict() | {"rates": dict(scope.rates)}}
    write_json(path, saved | dict(about))


def _merged(scope: Scope, about: Mapping[str, Any], path: Path) -> Scope:
    """Return the scope in `path` with tables, cells and seeds of `scope` added."""
    before, about_before = read_scope(path.parent)
    for field in ("test_split", "train_images", "first_seed", "rates"):
        saved_value, value = getattr(before, field), getattr(scope, field)
        if saved_value != value:
            raise ValueError(
                f"{path}: this sweep was started {_as_flag(field, saved_value)}, not "
                f"{_as_flag(field, value)}; give the same value, or choose another "
                "folder"
            )
    for field in ("steps", "dataset", "class_names"):
        if about_before[field] != about[field]:
            raise ValueError(
                f"{path}: this sweep was started with {field} {about_before[field]!r}, "
                f"not {about[field]!r}, so the data has changed; restore the data, or "
                "choose another folder for the sweep"
            )
    tables = tuple(dict.fromkeys(before.tables + scope.tables))
    named = tuple(dict.fromkeys(before.only + scope.only))
    return scope._replace(
        tables=tables,
        only=named if before.only and scope.only else (),
        seeds=max(before.seeds, scope.seeds),
    )
