"""What a sweep consists of, as its folder's sweep.json says."""

import json
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from tempseg_jax.data.catalog import Split
from tempseg_jax.sweep import cells, store
from tempseg_jax.sweep.store import Run


class Scope(NamedTuple):
    """What a sweep consists of; a later start may add tables and seeds."""

    tables: tuple[str, ...]
    seeds: int
    test_split: str  # scored once, at the end of each run; "" for none
    train_images: int | None  # for the train-val gap; None for as many as val has

    def runs(self, config: ConfigDict) -> list[Run]:
        """List the runs, seed by seed, so that what is done can be compared."""
        chosen = cells.choose(config, self.tables)
        return [Run(cell, seed) for seed in range(self.seeds) for cell in chosen]


def read_scope(folder: str | Path) -> tuple[Scope, dict]:
    """Return what a sweep's folder consists of, and how it was run.

    Raises:
        FileNotFoundError: it is not the folder of a sweep.
    """
    path = Path(folder) / "sweep.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file, so {folder} is not the folder of a sweep; run "
            "scripts/sweep.py with --workdir first, or name another folder"
        )
    saved = json.loads(path.read_text())
    scope = saved.pop("scope")
    return Scope(**scope | {"tables": tuple(scope["tables"])}), saved


def claim(folder: Path, scope: Scope, *, val: Split, steps: int) -> None:
    """Add this scope to the folder's; what finished runs were scored on stays."""
    path = folder / "sweep.json"
    if path.exists():
        before, _ = read_scope(folder)
        for field in ("test_split", "train_images"):
            there, now = getattr(before, field), getattr(scope, field)
            if there != now:
                raise ValueError(
                    f"{path}: runs here are scored with --{field}={there!r}, not "
                    f"{now!r}; give the same, or choose another --workdir"
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
    store.write_json(path, saved)
