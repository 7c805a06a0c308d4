"""Start the same command several times, each process on its own cores."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def core_groups(count: int, cores: Sequence[int]) -> list[list[int]]:
    """Divide the cores among processes, as evenly as possible.

    Raises:
        ValueError: If there are fewer cores than processes.
    """
    if count > len(cores):
        raise ValueError(
            f"--jobs: {count} processes need as many cores, and {len(cores)} are "
            "available; give at most that number"
        )
    return [list(cores[i::count]) for i in range(count)]


def run(arguments: Sequence[str], *, count: int, folder: Path) -> None:
    """Run `count` processes of a Python command until all end.

    Each is restricted to its own cores before it starts any thread, so that XLA and the
    input pipeline create threads for these cores only. SIGINT and SIGTERM are passed on
    to all of them.

    Args:
        arguments: The arguments of the Python interpreter.
        count: Number of processes.
        folder: Folder of the processes' output, job1.log, job2.log and so on.

    Raises:
        ValueError: If there are fewer cores than processes.
        OSError: If a process cannot be started or a file cannot be written.
    """
    groups = core_groups(count, sorted(_available_cores()))
    folder.mkdir(parents=True, exist_ok=True)
    jobs: list[subprocess.Popen] = []

    def pass_on(number: int, _: object) -> None:
        os.write(
            2, b"\nStopping after this step of each job; repeat to stop at once.\n"
        )
        for job in jobs:
            if job.poll() is None:
                job.send_signal(number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, cores in enumerate(groups, start=1):
            path = folder / f"job{number}.log"
            print(f"Job {number} runs on cores {cores}; its output: {path}", flush=True)
            with path.open("a") as log:
                jobs.append(_start(arguments, cores, log))
        for job in jobs:
            job.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _available_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _start(arguments: Sequence[str], cores: list[int], log) -> subprocess.Popen:
    """Start one process, in a session of its own: Ctrl-C reaches it through `run`."""
    program = (
        "import os, sys\n"
        "if hasattr(os, 'sched_setaffinity'):\n"
        f"    os.sched_setaffinity(0, {cores})\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
