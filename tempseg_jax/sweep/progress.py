"""The progress of a sweep: the state of each run, and the time left."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock

from tempseg_jax.sweep.cells import CELLS
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir import checkpoint_folder
from tempseg_jax.workdir.metrics_writer import read_metrics


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Lock the workdir of a run; yields False if another process has locked it.

    The operating system releases the lock if the process is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=2)  # `state` holds it for an instant
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def view(sweep: Path, runs: Sequence[Run], *, mine: Sequence[Run], steps: int) -> str:
    """Return the table of all runs, their counts, and the time left for `mine`.

    Args:
        sweep: Folder of the sweep.
        runs: All runs of the sweep.
        mine: The runs of this process, whose time left is estimated.
        steps: Number of steps of one run.
    """
    states = {x: state(sweep, x) for x in runs}
    seeds = sorted({x.seed for x in runs})
    cells = list(dict.fromkeys(x.cell for x in runs))
    width = max(map(len, cells))
    rows = [" " * width + "".join(f"  {'seed ' + str(n):>9}" for n in seeds)]
    for cell in cells:
        row = "".join(f"  {states[Run(cell, n)]:>9}" for n in seeds)
        rows.append(f"{cell:<{width}}{row}")
    count = {
        name: sum(x.split()[0] == name for x in states.values())
        for name in ("done", "diverged", "running", "stopped")
    }
    left = len(runs) - sum(count.values())
    shown = [f"{number} {name}" for name, number in count.items() if number]
    seconds = seconds_left(sweep, mine, steps=steps)
    when = "; time left not known yet"
    if seconds is not None:
        # "": all of `mine` are finished.
        when = f"; about {hours(seconds)} left for one process" if seconds else ""
    of_them = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    rows.append(f"{of_them}: {', '.join([*shown, f'{left} to do'])}{when}")
    return "\n".join(rows)


def seconds_left(sweep: Path, runs: Sequence[Run], *, steps: int) -> float | None:
    """Estimate the time left from the finished runs; None if no run has finished.

    Runs with and without a discriminator are estimated separately.
    """
    finals = {x: x.final(sweep) for x in _ended_runs(sweep)}
    known: dict[bool, list[float]] = {True: [], False: []}  # by: has a discriminator
    for finished, final in finals.items():
        if final and "seconds" in final:
            known[_adversarial(finished.cell)].append(final["seconds"])
    everything = known[True] + known[False]
    if not everything:
        return None
    total = 0.0
    for run in runs:
        if run.finished(sweep):
            continue
        alike = known[_adversarial(run.cell)] or everything
        done = saved_step(run.folder(sweep)) / steps
        total += sum(alike) / len(alike) * (1 - done)
    return total


def _ended_runs(sweep: Path) -> list[Run]:
    """Return all runs of the folder with a `final.json`, of any table."""
    runs = []
    for path in sweep.glob("*/seed*/final.json"):
        cell, seed = path.parent.parent.name, path.parent.name.removeprefix("seed")
        if cell in CELLS and seed.isdigit():  # no copy such as seed0_old
            runs.append(Run(cell, int(seed)))
    return runs


def _adversarial(cell: str) -> bool:
    return CELLS[cell].overrides.get("objective.alpha") != 0.0


def state(sweep: Path, run: Run) -> str:
    """Return `done`, `diverged`, `running <step>`, `stopped <step>`, or `–`.

    The last means that the run has not started.
    """
    final = run.final(sweep)
    if final is not None:
        return "diverged" if "diverged" in final else "done"
    folder = run.folder(sweep)
    if not (folder / ".lock").exists():
        return "–"
    lock = filelock.FileLock(folder / ".lock")
    try:
        with lock.acquire(timeout=0):
            return _stopped(folder)
    except OSError:  # of another user or read-only: whether it runs is not known
        return _stopped(folder)
    except filelock.Timeout:
        lines = read_metrics(folder)
        return f"running {lines[-1]['step'] if lines else 0}"


def _stopped(folder: Path) -> str:
    step = saved_step(folder)
    return f"stopped {step}" if step else "–"


def saved_step(folder: Path) -> int:
    """Return the step of the latest checkpoint of a run, 0 if there is none."""
    return max(checkpoint_folder.steps(folder / "checkpoints"), default=0)


def hours(seconds: float) -> str:
    """Return a duration as text, rounded to the minute and at least 1 min."""
    minutes = max(round(seconds / 60), 1)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
