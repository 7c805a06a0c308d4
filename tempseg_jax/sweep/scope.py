"""The scope of a sweep, stored in `sweep.json`: which tables, seeds and splits."""

from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from tempseg_jax.data.catalog import Split
from tempseg_jax.io.json_files import read_json, write_json
from tempseg_jax.sweep import cells
from tempseg_jax.sweep.store import Run


class Scope(NamedTuple):
    """The runs of a sweep and the splits they are evaluated on.

    A later start in the same folder may add tables and seeds, but not change the
    evaluated splits.
    """

    tables: tuple[str, ...]  # keys of `cells.TABLES`
    seeds: int  # runs of each cell, with seeds 0 to seeds - 1
    test_split: str  # evaluated once, at the end of each run; "" for none
    train_images: int | None  # for the train-val gap; None: as many as val has

    def runs(self, config: ConfigDict) -> list[Run]:
        """List the runs, all cells with one seed before the next seed.

        The finished part of a sweep can then be compared in pairs.
        """
        chosen = cells.choose(config, self.tables)
        return [Run(cell, seed) for seed in range(self.seeds) for cell in chosen]


def read_scope(folder: str | Path) -> tuple[Scope, dict]:
    """Return the scope of a sweep, and the other fields of its `sweep.json`.

    Raises:
        FileNotFoundError: If the folder holds no sweep.
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
        return Scope(**scope | {"tables": tuple(scope["tables"])}), saved
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: it does not describe a sweep ({error!s:.80}); {remedy}"
        ) from None


def claim(folder: Path, scope: Scope, *, val: Split, steps: int) -> None:
    """Write `sweep.json`, or add the tables and seeds of this scope to it.

    Args:
        folder: Folder of the sweep.
        scope: The scope that the sweep is started or resumed with.
        val: The validation split, which names the dataset and its classes.
        steps: Number of steps of one run.

    Raises:
        ValueError: If runs in this folder are evaluated on other splits.
    """
    path = folder / "sweep.json"
    if path.exists():
        before, _ = read_scope(folder)
        for field in ("test_split", "train_images"):
            saved_value, value = getattr(before, field), getattr(scope, field)
            if saved_value != value:
                raise ValueError(
                    f"{path}: the runs of this sweep are evaluated with "
                    f"--{field}={saved_value!r}, not {value!r}; give the same value, "
                    "or another --workdir"
                )
        tables = tuple(dict.fromkeys(before.tables + scope.tables))
        seeds = max(before.seeds, scope.seeds)
        scope = scope._replace(tables=tables, seeds=seeds)
    saved = {
        "scope": scope._asdict(),
        "steps": steps,
        "dataset": val.dataset,
        "class_names": val.class_names,
        "palette": val.palette.tolist(),
    }
    write_json(path, saved)
