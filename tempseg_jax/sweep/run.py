"""Train every cell with every seed, in one process, going on where it was stopped."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from tempseg_jax import train
from tempseg_jax.plan import Plan
from tempseg_jax.sweep import cells, progress, store
from tempseg_jax.sweep.finish import Splits, finish
from tempseg_jax.sweep.provenance import now, provenance
from tempseg_jax.sweep.scope import Scope, claim
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir import saved_config
from tempseg_jax.workdir.checkpoint import Checkpoints


def parse_shard(text: str) -> tuple[int, int]:
    """Return (i, n) of `i/n`.

    Raises:
        ValueError: it is not that, with i from 1 to n.
    """
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise ValueError(f"--shard: {text!r} is not i/n with 1 <= i <= n, as in 1/4")
    return int(index), int(count)


def run_sweep(
    config: ConfigDict,
    folder: str | Path,
    *,
    scope: Scope,
    only: Sequence[str],
    shard: tuple[int, int],
    keep_checkpoints: bool,
) -> bool:
    """Train what is not finished; return whether it all is, or a signal came.

    Seeds are in the outer loop, so that a sweep cut short has whole comparisons. All
    runs share the compiled step: cells differ in numbers, which it traces. A run that
    another process works on is left to it.

    Args:
        config: what every cell starts from.
        folder: where the sweep lives.
        scope: what to train.
        only: cells to train now; all if empty.
        shard: (i, n): train the i-th part of n, from 1.
        keep_checkpoints: keep those of finished runs.

    Raises:
        ValueError, OSError: the config, the data, or what is in the folder is bad.
    """
    folder, runs = Path(folder), scope.runs(config)
    _check_cells(only, runs)
    splits = Splits.load(
        config, test_split=scope.test_split, train_images=scope.train_images
    )
    plan = Plan.of(config, images=splits.images_per_epoch)
    saved_config.claim(folder, config, allow_change=False)
    claim(folder, scope, val=splits["val"], steps=plan.steps)
    made = provenance()  # now: the files may change while the program runs
    index, count = shard
    mine = [x for x in runs[index - 1 :: count] if not only or x.cell in only]
    for current in mine:
        if current.finished(folder):
            continue
        print(progress.view(folder, runs, mine=mine, steps=plan.steps), flush=True)
        with progress.claimed(current.folder(folder)) as free:
            if free and not current.finished(folder):
                print(f"\n{current.cell}, seed {current.seed}", flush=True)
                if not _train(config, folder, current, splits, plan.steps, made=made):
                    return False
                if not keep_checkpoints:
                    checkpoints = current.folder(folder) / "checkpoints"
                    shutil.rmtree(checkpoints, ignore_errors=True)
    print(progress.view(folder, runs, mine=mine, steps=plan.steps), flush=True)
    return all(x.finished(folder) for x in mine)


def _train(
    config: ConfigDict,
    sweep: Path,
    current: Run,
    splits: Splits,
    steps: int,
    *,
    made: dict[str, str],
) -> bool:
    """Train and measure one run; return whether it was not interrupted."""
    own = cells.configure(config, current.cell, seed=current.seed)
    folder, start = current.folder(sweep), time.perf_counter()
    first = _last_checkpoint(folder)
    try:
        interrupted = train.train(own, str(folder), allow_change=False)
    except train.Diverged as error:
        # A result as well: the same again would diverge again.
        final = {"diverged": str(error)}
    else:
        if interrupted:
            print("Stopped; the same command goes on from here.", flush=True)
            return False
        trained = time.perf_counter()
        final = finish(own, folder, splits, examples=sweep / "examples.npz")
        final["seconds"] = time.perf_counter() - trained
        if first < steps:
            final["seconds"] += (trained - start) * steps / (steps - first)
    final["provenance"] = made | {"date": now()}
    store.write_json(folder / "final.json", final)
    return True


def _last_checkpoint(folder: Path) -> int:
    checkpoints = Checkpoints(folder)
    steps = checkpoints.steps()
    checkpoints.close()
    return steps[-1] if steps else 0


def _check_cells(only: Sequence[str], runs: Sequence[Run]) -> None:
    known = dict.fromkeys(x.cell for x in runs)
    for cell in only:
        if cell not in known:
            raise ValueError(
                f"--cells: {cell!r} is not a cell of these tables; they have "
                f"{', '.join(known)}"
            )
