"""Read what a sweep left on disk; see what is missing."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from tempseg_jax.sweep import cells, progress, store
from tempseg_jax.sweep.cells import CELLS, TABLES
from tempseg_jax.sweep.measurement import Measurement
from tempseg_jax.sweep.scope import read_scope
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir import saved_config
from tempseg_jax.workdir.metrics_writer import read_metrics

Series = list[tuple[int, float]]
"""Points of (step, value)."""


class Evidence:
    """A sweep, as far as it has come. Scores are in per cent, by seed."""

    def __init__(self, folder: str | Path, *, block: int = 1):
        """Read the folder of a sweep.

        Args:
            folder: the sweep's workdir.
            block: so many neighboring images are one draw of the bootstrap.

        Raises:
            FileNotFoundError: it is none.
        """
        self.folder, self.block = Path(folder), block
        self.scope, about = read_scope(folder)
        self.config = saved_config.read_config(folder)
        self.steps: int = about["steps"]
        self.dataset: str = about["dataset"]
        self.class_names: list[str] = about["class_names"]
        self.palette = np.array(about["palette"], np.uint8)
        self.runs = self.scope.runs(self.config)
        finals = {x: _final(x.folder(self.folder)) for x in self.runs}
        self.finals = {x: f for x, f in finals.items() if f and "diverged" not in f}
        self.diverged = {
            x: f["diverged"] for x, f in finals.items() if f and "diverged" in f
        }

    def provenance(self) -> dict[str, str]:
        """Return where and with what the finished runs were made: each thing once."""
        found: dict[str, dict[str, None]] = {}
        for final in self.finals.values():
            for name, value in final.get("provenance", {}).items():
                found.setdefault(name, {})[value] = None
        dates = sorted(found.pop("date", ()))
        if dates:
            found["finished"] = dict.fromkeys([dates[0], dates[-1]])
        joined = {name: "; ".join(values) for name, values in found.items()}
        seconds = [final["seconds"] for final in self.finals.values()]
        return joined | {"time": progress.hours(float(sum(seconds)))}

    def cell(self, name: str) -> str:
        """Return the cell whose runs stand for this one."""
        return cells.trained_as(self.config, name)

    def title(self, name: str) -> str:
        """Return a trained cell's title as the sweep's tables have it."""
        shown = [x for table in self.scope.tables for x in TABLES[table].cells]
        own = [x for x in shown if self.cell(x) == name]
        return CELLS[name if name in own or not own else own[0]].title

    def finished(self, cell: str) -> dict[int, dict[str, Any]]:
        """Return what `final.json` says, by seed."""
        cell = self.cell(cell)
        return {x.seed: final for x, final in self.finals.items() if x.cell == cell}

    def scores(self, cell: str, split: str, metric: str) -> dict[int, float]:
        """Return a score in per cent, by seed."""
        found = {
            seed: final["splits"].get(split, {}).get(metric)
            for seed, final in self.finished(cell).items()
        }
        return {seed: 100 * value for seed, value in found.items() if value is not None}

    def splits(self) -> list[str]:
        """Return the names of the splits that are compared."""
        return ["val", "test"] if self.scope.test_split else ["val"]

    def measurements(self, cell: str, split: str) -> dict[int, Measurement]:
        """Return the per-image results, by seed, images in the order of their ids."""
        cell, found = self.cell(cell), {}
        for seed, final in self.finished(cell).items():
            if split in final["splits"]:
                found[seed] = self._measurement(cell, seed, split)
        return found

    def confusions(self, cell: str, split: str) -> dict[int, Int[np.ndarray, "n k k"]]:
        """Return one confusion matrix an image, by seed."""
        found = self.measurements(cell, split)
        return {seed: measurement.confusion for seed, measurement in found.items()}

    def curves(self, cell: str, name: str) -> dict[int, Series]:
        """Return a number of metrics.jsonl over the steps, by seed."""
        cell = self.cell(cell)
        found = {}
        for seed in self.finished(cell):
            points = [
                (line["step"], line[name])
                for line in self._metrics(cell, seed)
                if line.get(name) is not None
            ]
            if points:
                found[seed] = points
        return found

    def predictions(self, cell: str, seed: int) -> dict[str, UInt8[np.ndarray, "h w"]]:
        """Return the stored predictions, by image id; none if there are none."""
        path = Run(self.cell(cell), seed).folder(self.folder) / "predictions.npz"
        return store.load_pictures(path, field="prediction") if path.exists() else {}

    def examples(self, field: str) -> dict[str, UInt8[np.ndarray, "..."]]:
        """Return the stored `image` or `label`, by image id."""
        path = self.folder / "examples.npz"
        return store.load_pictures(path, field=field) if path.exists() else {}

    def missing(self) -> list[str]:
        """Say of every run that has no result why: a line for each setting."""
        found: dict[str, dict[str, list[int]]] = {run.cell: {} for run in self.runs}
        for run in self.runs:
            if run not in self.finals:
                found[run.cell].setdefault(self._why(run), []).append(run.seed)
        return [
            f"{self.title(cell)}: "
            + "; ".join(f"{_seeds(seeds)} {why}" for why, seeds in whys.items())
            for cell, whys in found.items()
            if whys
        ]

    def _why(self, run: Run) -> str:
        if run in self.diverged:
            # The message has the losses and the advice after the first bracket.
            return f"diverged ({self.diverged[run].partition(' (')[0]})"
        state, _, step = progress.state(self.folder, run).partition(" ")
        match state:
            case "stopped":
                return f"stopped at {step} of {self.steps} steps"
            case "running":
                return f"running, at {step} of {self.steps} steps"
            case "–":
                return "not started"
        return "finished after this was read"

    @functools.cache  # noqa: B019
    def _measurement(self, cell: str, seed: int, split: str) -> Measurement:
        path = Run(cell, seed).folder(self.folder) / f"{split}.npz"
        found = store.load_measurement(path)
        order = np.argsort(found.ids)
        return found._replace(
            ids=[found.ids[i] for i in order],
            confusion=found.confusion[order],
            nats=found.nats[order],
        )

    @functools.cache  # noqa: B019
    def _metrics(self, cell: str, seed: int) -> list[dict[str, int | float | None]]:
        return read_metrics(Run(cell, seed).folder(self.folder))


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _final(folder: Path) -> dict[str, Any] | None:
    path = folder / "final.json"
    return json.loads(path.read_text()) if path.exists() else None
