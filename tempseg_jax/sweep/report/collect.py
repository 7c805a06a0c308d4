"""Read the results of a sweep from its folder, and list the missing runs."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from tempseg_jax.sweep import cells, progress, store
from tempseg_jax.sweep.cells import CELLS, TABLES
from tempseg_jax.sweep.changed_cells import changed_values
from tempseg_jax.sweep.measurement import Measurement
from tempseg_jax.sweep.scope import read_scope
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir import saved_config
from tempseg_jax.workdir.metrics_writer import read_metrics

Series = list[tuple[int, float]]
"""Points of (step, value)."""


class SweepResults:
    """The results of a sweep, complete or not; scores are percentages by seed."""

    def __init__(self, folder: str | Path, *, block: int = 1):
        """Read the folder of a sweep.

        Args:
            folder: The workdir of the sweep.
            block: Number of neighboring images that the bootstrap resamples together.

        Raises:
            FileNotFoundError: If it is not the folder of a sweep.
        """
        self.folder, self.block = Path(folder), block
        self._images: dict[str, tuple[Run, list[str]]] = {}  # by split: the first run's
        self.scope, about = read_scope(folder)
        self.config = saved_config.read_config(folder)
        self.steps: int = about["steps"]
        self.dataset: str = about["dataset"]
        self.class_names: list[str] = about["class_names"]
        self.palette = np.array(about["palette"], np.uint8)
        self.runs = self.scope.runs(self.config)
        finals = {run: run.final(self.folder) for run in self.runs}
        # The contents of final.json by finished run, and why the others diverged.
        self.finals = {x: f for x, f in finals.items() if f and "diverged" not in f}
        self.diverged = {
            x: f["diverged"] for x, f in finals.items() if f and "diverged" in f
        }

    def provenance(self) -> dict[str, str]:
        """Return on which machine, when and with which versions the runs finished.

        Different values of one entry are joined by semicolons.
        """
        entries: dict[str, dict[str, None]] = {}
        for final in self.finals.values():
            for name, value in final.get("provenance", {}).items():
                entries.setdefault(name, {})[value] = None
        dates = sorted(entries.pop("date", ()))
        if dates:
            entries["finished (first; last)"] = dict.fromkeys([dates[0], dates[-1]])
        joined = {name: "; ".join(values) for name, values in entries.items()}
        return joined | self._run_time()

    def _run_time(self) -> dict[str, str]:
        """Return the time of all finished runs, as far as it is known."""
        seconds = [x["seconds"] for x in self.finals.values() if "seconds" in x]
        if not seconds:
            return {}
        unknown = len(self.finals) - len(seconds)
        text = progress.hours(float(sum(seconds)))
        note = f", without {unknown} whose time is not known" if unknown else ""
        return {"total run time": text + note}

    def cell(self, name: str) -> str:
        """Return the cell that was trained for this one; equal configs share runs."""
        return cells.trained_as(self.config, name, self.scope.rates)

    def title(self, name: str) -> str:
        """Return a trained cell's title as in the tables of this sweep."""
        shown = [x for table in self.scope.tables for x in TABLES[table].cells]
        own = [x for x in shown if self.cell(x) == name]
        return CELLS[name if name in own or not own else own[0]].title

    def finished(self, cell: str) -> dict[int, dict[str, Any]]:
        """Return the contents of `final.json` of a cell's finished runs, by seed."""
        cell = self.cell(cell)
        return {x.seed: final for x, final in self.finals.items() if x.cell == cell}

    def with_runs(self, cells: Sequence[str]) -> list[str]:
        """Return the first cell, and those with a run that has finished or diverged."""
        ended = {run.cell for run in (*self.finals, *self.diverged)}
        reference, *others = cells
        return [reference, *(x for x in others if self.cell(x) in ended)]

    def scores(self, cell: str, split: str, metric: str) -> dict[int, float]:
        """Return a score in percent, by seed."""
        values = {
            seed: final["splits"].get(split, {}).get(metric)
            for seed, final in self.finished(cell).items()
        }
        return {seed: 100 * x for seed, x in values.items() if x is not None}

    def splits(self) -> list[str]:
        """Return the names of the splits on which the settings are compared."""
        return ["val", "test"] if self.scope.test_split else ["val"]

    def measurements(self, cell: str, split: str) -> dict[int, Measurement]:
        """Return the per-image results by seed, with the images sorted by id."""
        cell = self.cell(cell)
        return {
            seed: self._measurement(cell, seed, split)
            for seed, final in self.finished(cell).items()
            if split in final["splits"]
        }

    def confusions(self, cell: str, split: str) -> dict[int, Int[np.ndarray, "n k k"]]:
        """Return one confusion matrix per image, by seed, in the same order of images.

        Raises:
            ValueError: If a run was evaluated on other images than another one.
        """
        measurements = self.measurements(cell, split)
        for seed, measurement in measurements.items():
            self._check_images(Run(self.cell(cell), seed), split, measurement.ids)
        return {seed: x.confusion for seed, x in measurements.items()}

    def curves(self, cell: str, name: str) -> dict[int, Series]:
        """Return a metric of metrics.jsonl over the training steps, by seed."""
        cell = self.cell(cell)
        curves = {}
        for seed in self.finished(cell):
            points = [
                (line["step"], line[name])
                for line in self._metrics(cell, seed)
                if line.get(name) is not None
            ]
            if points:
                curves[seed] = points
        return curves

    def predictions(self, cell: str, seed: int) -> dict[str, UInt8[np.ndarray, "h w"]]:
        """Return the stored predictions by image id; empty if none were stored."""
        path = Run(self.cell(cell), seed).folder(self.folder) / "predictions.npz"
        return store.load_pictures(path, field="prediction") if path.exists() else {}

    def examples(self, field: str) -> dict[str, UInt8[np.ndarray, "..."]]:
        """Return the stored `image` or `label` by image id."""
        path = self.folder / "examples.npz"
        return store.load_pictures(path, field=field) if path.exists() else {}

    def changed(self) -> dict[str, list[str]]:
        """Return what differs in the runs of cells that this version trains otherwise.

        The fields are listed with the values that the first such run of a cell has and
        those that it would have now.
        """
        found: dict[str, list[str]] = {}
        for run in self.finals:
            values = changed_values(
                self.config, run, self.folder, rates=self.scope.rates
            )
            if values:
                found.setdefault(run.cell, values)
        return found

    def missing(self) -> list[str]:
        """Return a line for each setting with missing runs: seeds and reasons."""
        reasons: dict[str, dict[str, list[int]]] = {run.cell: {} for run in self.runs}
        for run in self.runs:
            if run not in self.finals:
                seeds = reasons[run.cell].setdefault(self._reason(run), [])
                seeds.append(run.seed)
        return [
            f"{self.title(cell)}: "
            + "; ".join(f"{_seeds(seeds)} {why}" for why, seeds in of_cell.items())
            for cell, of_cell in reasons.items()
            if of_cell
        ]

    def _reason(self, run: Run) -> str:
        if run in self.diverged:
            # In parentheses the message has the losses and advice: too long for a line.
            return f"diverged ({self.diverged[run].partition(' (')[0]})"
        state, _, step = progress.state(self.folder, run).partition(" ")
        match state:
            case "stopped":
                return f"stopped at step {step} of {self.steps}"
            case "running":
                return f"running, at step {step} of {self.steps}"
            case "–":
                return "not started"
        return "finished after the report had read the sweep"

    def _check_images(self, run: Run, split: str, ids: list[str]) -> None:
        first, first_ids = self._images.setdefault(split, (run, ids))
        if ids != first_ids:
            a, b = (x.folder(self.folder) / f"{split}.npz" for x in (first, run))
            raise ValueError(
                f"{b}: the run was evaluated on other images ({len(ids)}) than that "
                f"of {a} ({len(first_ids)}), so they cannot be compared; delete the "
                "folder of the run that is wrong, and the sweep trains it again"
            )

    # The caches live as long as this object, which is one report.
    @functools.cache  # noqa: B019
    def _measurement(self, cell: str, seed: int, split: str) -> Measurement:
        path = Run(cell, seed).folder(self.folder) / f"{split}.npz"
        measurement = store.load_measurement(path)
        # By number, so that neighbors are neighboring frames of a video.
        order = sorted(range(len(ids := measurement.ids)), key=lambda i: _key(ids[i]))
        return measurement._replace(
            ids=[ids[i] for i in order],
            confusion=measurement.confusion[order],
            nats=measurement.nats[order],
        )

    @functools.cache  # noqa: B019
    def _metrics(self, cell: str, seed: int) -> list[dict[str, int | float | None]]:
        return read_metrics(Run(cell, seed).folder(self.folder))


def _key(id_: str) -> list[tuple[int, str]]:
    """Return the parts of a name so that `frame_10` is sorted after `frame_9`."""
    parts = re.split(r"(\d+)", id_)
    return [(int(x), "") if x.isdecimal() else (-1, x) for x in parts]


def _seeds(seeds: list[int]) -> str:
    """Return `seed 2`, `seeds 2, 5`, or `seeds 2 to 5` for three or more in a row."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
