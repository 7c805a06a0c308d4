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
from tempseg_jax.sweep.cells import TABLES
from tempseg_jax.sweep.finish import Splits, finish
from tempseg_jax.sweep.provenance import now, provenance
from tempseg_jax.sweep.scope import Scope, claim
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir import saved_config
from tempseg_jax.workdir.checkpoint import Checkpoints

_REMEDY = "choose another --workdir"  # if the folder belongs to another config


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
    only: Sequence[str],
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
        scope: The runs of the sweep.
        only: Cells to train in this process; all if empty.
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
    mine = runs_of_process(config, scope, only=only, shard=shard)
    configs = _checked_configs(config, scope, mine, folder)
    splits = Splits.load(
        config, test_split=scope.test_split, train_images=scope.train_images
    )
    plan = Plan.of(config, images=splits.images_per_epoch)
    for own in configs:  # before hours of training
        builders.hyperparameters(own, plan)
    saved_config.claim(folder, config, allow_change=False, remedy=_REMEDY)
    claim(folder, scope, val=splits.by_name["val"], steps=plan.steps)
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
                steps=plan.steps,
                origin=origin,
            ):
                return False
            if not keep_checkpoints:
                checkpoints = current.folder(folder) / "checkpoints"
                shutil.rmtree(checkpoints, ignore_errors=True)
    print(progress.view(folder, runs, mine=mine, steps=plan.steps), flush=True)
    return all(x.finished(folder) for x in mine)


def runs_of_process(
    config: ConfigDict,
    scope: Scope,
    *,
    only: Sequence[str],
    shard: tuple[int, int],
) -> list[Run]:
    """Return the runs that a process trains, finished or not; see `run_sweep`.

    Raises:
        ValueError: If a cell of `only` is not in the scope.
    """
    runs = scope.runs(config)
    _check_cells(only, scope)
    trained = [cells.trained_as(config, x, scope.rates) for x in only]
    runs = [x for x in runs if not only or x.cell in trained]
    columns = list(dict.fromkeys(x.cell for x in runs))
    index, count = shard
    # Each part has runs of every cell, because adversarial ones take longer.
    return [x for x in runs if (columns.index(x.cell) + x.seed) % count == index - 1]


def _checked_configs(
    config: ConfigDict, scope: Scope, runs: Sequence[Run], folder: Path
) -> list[ConfigDict]:
    """Return the config of the first unfinished run of each cell, after its checks.

    Raises:
        ValueError: If a field of a cell has a value that is not allowed.
        FileNotFoundError: If `model.pretrained` is a folder without a checkpoint.
    """
    configs = []
    first = {x.cell: x for x in reversed(runs) if not x.finished(folder)}
    for run in first.values():
        own = cells.configure(config, run.cell, seed=run.seed, rates=scope.rates)
        config_fields.check_fields(own)
        resume.check_networks(own, run.folder(folder))
        configs.append(own)
    return configs


def _train(
    own: ConfigDict,
    current: Run,
    *,
    sweep: Path,
    splits: Splits,
    steps: int,
    origin: dict[str, str],
) -> bool:
    """Train and measure one run; return False if training was interrupted.

    Args:
        own: The config of the run.
        current: The run.
        sweep: Folder of the sweep.
        splits: The splits to measure it on.
        steps: Number of steps of the run.
        origin: The provenance of the program.
    """
    folder, start = current.folder(sweep), time.perf_counter()
    first = _last_checkpoint(folder)
    try:
        interrupted = train.train(own, str(folder), allow_change=False)
    except Diverged as error:
        # This is a result as well, because a repetition would diverge again.
        final = {"diverged": str(error)}
    else:
        if interrupted:
            print("Stopped; the same command resumes the sweep.", flush=True)
            return False
        trained = time.perf_counter()
        final = finish(own, folder, splits, examples=sweep / "examples.npz")
        if first < steps:  # otherwise the time of training is not known
            measured = time.perf_counter() - trained
            whole = (trained - start) * steps / (steps - first)
            final["seconds"] = whole + measured
    final["provenance"] = origin | {"date": now()}
    write_json(folder / "final.json", final)
    return True


def _last_checkpoint(folder: Path) -> int:
    checkpoints = Checkpoints(folder)
    steps = checkpoints.steps()
    checkpoints.close()
    return steps[-1] if steps else 0


def _check_cells(only: Sequence[str], scope: Scope) -> None:
    known = dict.fromkeys(x for table in scope.tables for x in TABLES[table].cells)
    for cell in only:
        if cell not in known:
            raise ValueError(
                f"--cells: {cell!r} is not a cell of these tables; they have "
                f"{', '.join(known)}"
            )
