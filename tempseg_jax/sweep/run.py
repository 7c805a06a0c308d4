"""Run a sweep: train and measure every cell with every seed, resuming if stopped."""

import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from tempseg_jax import builders, resume, train
from tempseg_jax.builders import config_fields
from tempseg_jax.builders.plan import Plan
from tempseg_jax.callbacks import Diverged
from tempseg_jax.io.json_files import write_json
from tempseg_jax.sweep import cells, progress
from tempseg_jax.sweep.changed_cells import changed_values
from tempseg_jax.sweep.finish import Splits, finish
from tempseg_jax.sweep.provenance import now, provenance
from tempseg_jax.sweep.scope import Scope, claim
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir.metrics_writer import read_metrics


def parse_shard(text: str) -> tuple[int, int]:
    """Return (i, n) of the text `i/n`.

    Raises:
        ValueError: If the text is not of this form with 1 <= i <= n.
    """
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise ValueError(
            f"--shard: {text!r} is not i/n with 1 <= i <= n, for example 1/4"
        )
    return int(index), int(count)


def run_sweep(
    config: ConfigDict,
    folder: str | Path,
    *,
    scope: Scope,
    shard: tuple[int, int],
    keep_checkpoints: bool,
    budget_minutes: float | None = None,
) -> bool:
    """Train and measure the runs of this process that are not finished.

    Each seed is trained for all cells before the next seed, so that an interrupted
    sweep can be compared in pairs. Cells that differ only in numbers share the compiled
    train step, which traces them. A run that another process is training is skipped,
    and so is a run that would not end within the budget. How long it would take is
    estimated from the finished runs of this folder; without any, it is started.

    Args:
        config: The config that every cell overrides.
        folder: Folder of the sweep; a sweep in it is resumed.
        scope: The runs to train, which are added to those of the sweep.
        shard: The pair (i, n) trains every n-th run from the i-th, counted from 1.
        keep_checkpoints: Whether to keep the checkpoints of finished runs.
        budget_minutes: Time in which started runs have to end; None: unlimited.

    Returns:
        Whether all runs of this process are finished.

    Raises:
        ValueError: If an argument, the config or the data is invalid, or the folder
            belongs to another config or scope.
        OSError: If the data cannot be read or the folder cannot be written.
    """
    config_fields.check_fields(config)
    deadline = math.inf if budget_minutes is None else budget_minutes * 60
    deadline += time.monotonic()
    folder, runs = Path(folder), scope.runs(config)
    mine = runs_of_process(config, scope, shard=shard)
    configs = _checked_configs(config, scope, mine, folder)
    splits = Splits.load(
        config, test_split=scope.test_split, train_images=scope.train_images
    )
    plan = Plan.of(config, images=splits.images_per_epoch)
    for own in configs:  # before hours of training
        builders.hyperparameters(own, plan)
    claim(folder, scope, config, val=splits.by_name["val"], steps=plan.steps)
    origin = provenance()  # before training, during which the files may change
    for current in mine:
        if current.finished(folder):
            continue
        print(progress.view(folder, runs, mine=mine, steps=plan.steps), flush=True)
        with progress.claimed(current.folder(folder)) as free:
            if not free or current.finished(folder):
                continue
            seconds = progress.seconds_left(folder, [current], steps=plan.steps)
            if time.monotonic() + (seconds or 0.0) > deadline:
                print(
                    f"{current.cell}, seed {current.seed}: not started, because it "
                    f"would not end within --budget_minutes={budget_minutes:g}",
                    flush=True,
                )
                continue
            print(f"\n{current.cell}, seed {current.seed}", flush=True)
            own = cells.configure(
                config, current.cell, seed=current.seed, rates=scope.rates
            )
            if not _train(
                own,
                current,
                sweep=folder,
                splits=splits,
                origin=origin,
            ):
                return False
            if not keep_checkpoints:
                checkpoints = current.folder(folder) / "checkpoints"
                shutil.rmtree(checkpoints, ignore_errors=True)
    print(progress.view(folder, runs, mine=mine, steps=plan.steps), flush=True)
    return all(x.finished(folder) for x in mine)


def runs_of_process(
    config: ConfigDict, scope: Scope, *, shard: tuple[int, int]
) -> list[Run]:
    """Return the runs that a process trains, finished or not; see `run_sweep`.

    Raises:
        ValueError: If the scope names a table or a cell that does not exist.
    """
    runs = scope.runs(config)
    columns = list(dict.fromkeys(x.cell for x in runs))
    index, count = shard
    # Each part has runs of every cell, because adversarial ones take longer.
    return [x for x in runs if (columns.index(x.cell) + x.seed) % count == index - 1]


def _checked_configs(
    config: ConfigDict, scope: Scope, runs: Sequence[Run], folder: Path
) -> list[ConfigDict]:
    """Return the config of the first unfinished run of each cell, after its checks.

    Raises:
        ValueError: If a field of a cell has a value that is not allowed, or the
            finished runs of the cell were trained with other values.
        FileNotFoundError: If `model.pretrained` is a folder without a checkpoint.
    """
    configs = []
    first = {x.cell: x for x in reversed(runs) if not x.finished(folder)}
    for run in first.values():
        own = cells.configure(config, run.cell, seed=run.seed, rates=scope.rates)
        try:
            config_fields.check_fields(own)
            resume.check_networks(own, run.folder(folder))
        except ValueError as error:
            raise ValueError(f"cell {run.cell}: {error}") from error
        configs.append(own)
    for run in runs:
        if run.cell in first and run.finished(folder):
            changes = changed_values(config, run, folder, rates=scope.rates)
            if changes:
                raise ValueError(
                    f"{run.folder(folder)}: trained with other values of the cell than "
                    f"this version has ({'; '.join(changes)}), so that further seeds "
                    "could not be compared with it; choose another --workdir, or leave "
                    "the cell out of --cells"
                )
    return configs


def _train(
    own: ConfigDict,
    current: Run,
    *,
    sweep: Path,
    splits: Splits,
    origin: dict[str, str],
) -> bool:
    """Train and measure one run; return False if training was interrupted.

    Args:
        own: The config of the run.
        current: The run.
        sweep: Folder of the sweep.
        splits: The splits to measure it on.
        origin: The provenance of the program.
    """
    folder, start = current.folder(sweep), time.perf_counter()
    before = _seconds_of_steps(folder, last=progress.saved_step(folder))
    try:
        interrupted = train.train(own, str(folder), allow_change=False)
    except Diverged as error:
        # This is a result as well, because a repetition would diverge again.
        final = {"diverged": str(error)}
    else:
        if interrupted:
            print("Stopped; the same command resumes the sweep.", flush=True)
            return False
        final = finish(own, folder, splits, examples=sweep / "examples.npz")
        if before is not None:
            final["seconds"] = before + time.perf_counter() - start
    final["provenance"] = origin | {"date": now()}
    write_json(folder / "final.json", final)
    return True


def _seconds_of_steps(folder: Path, *, last: int) -> float | None:
    """Return the time of the steps up to `last`; None if the log lacks some of them.

    It is without compilations and evaluations, which are not logged.
    """
    seconds, previous = 0.0, 0
    for line in read_metrics(folder) if last else []:
        speed = line.get("train/steps_per_s")
        if speed and line["step"] <= last:
            seconds += (line["step"] - previous) / speed
            previous = line["step"]
    return seconds if previous == last else None
