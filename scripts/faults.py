"""Inject faults into training, evaluation, prediction and all readers of files.

    python scripts/faults.py --minutes=10 --seed=0

Processes are killed, disks are full or read-only, files are damaged, and two programs
run at once. An injection is survived if what is left or read is equal to that of an
undisturbed run; it is refused if the program ends with exit code 1 and one line. Any
other outcome is a finding: another result without a word, a traceback, a hang. The
command prints a table, with the seed that repeats each finding, and ends with exit
code 1 if there is any. SIGTERM or Ctrl-C ends it early, with the table so far.
docs/reliability.md says what is promised.
"""

import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["GLIBC_TUNABLES"] = ""  # no restart to get huge pages
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

from fault_parts import child, readers, samples, tiny
from fault_parts.campaign import Campaign
from fault_parts.processes import Processes
from fault_parts.runs import Runs
from fault_parts.sweeps import Sweeps

# Imported once, before processes are forked; `main` and `sweep` define flags of the
# same names, so that each process imports only one of them.
_MODULES = (
    "describe",
    "evaluate",
    "train",
    "cli.config_flag",
    "cli.distributed",
    "cli.huge_pages",
    "cli.side_by_side",
    "inference.predict_files",
    "sweep.run",
)
_OF_RUNS = ("text", "checkpoint", "dataset", "kill", "damage", "full_disk")
_OF_RUNS += ("read_only", "two", "outputs", "two_outputs")
_OF_SWEEPS = ("sweep", "two_sweeps")
_OF_PROCESSES = ("processes", "two_processes")


def main() -> int:
    """Run the campaign and print its table; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="time for injections")
    parser.add_argument("--seed", type=int, default=0, help="seed of the campaign")
    parser.add_argument("--only", help="comma-separated scenarios (default: all)")
    parser.add_argument("--first", type=int, help="seed of the first injection")
    parser.add_argument("--count", type=int, help="injections of each scenario")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tempseg_faults_") as scratch:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{scratch}/xla")
        return run(args, Path(scratch))


def run(args: argparse.Namespace, scratch: Path) -> int:
    """Inject faults until the time is over; each scenario gets its share of it."""
    for name in _MODULES:
        importlib.import_module(f"tempseg_jax.{name}")
    tiny.register()
    only = args.only.split(",") if args.only else None
    scenarios = build(scratch, only)
    campaign, used = Campaign(), dict.fromkeys(scenarios, 0.0)
    number = dict.fromkeys(scenarios, 0)
    first = args.seed * 1_000_000 if args.first is None else args.first
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end = time.monotonic() + args.minutes * 60
    try:
        while time.monotonic() < end:
            left = [
                x for x, n in number.items() if args.count is None or n < args.count
            ]
            if not left:
                break
            name = min(left, key=used.get)
            start = time.monotonic()
            scenarios[name](campaign, name, first + number[name])
            used[name] += time.monotonic() - start
            number[name] += 1
    except KeyboardInterrupt:  # or SIGTERM
        print("stopped by a signal")
    finally:
        child.kill_running()
    print(campaign.table(), flush=True)
    return int(bool(campaign.findings))


def build(scratch: Path, only: list[str] | None) -> dict:
    """Return the scenarios by name; what they share is made once."""
    folders = samples.write(scratch / "samples")
    copies = scratch / "copies"
    scenarios = {}

    def reader(name: str, folder: Path, what: Callable, *, same: bool) -> None:
        read = readers.Reader(folder, what, same=same)
        scenarios[name] = lambda c, n, s: read(c, n, s, copies)

    for name in ("images", "masks", "weights", "archives", "mat"):
        reader(name, folders[name], getattr(readers, name), same=False)
    arguments = samples.training(folders["dataset"], scratch / "prepared")
    if _any(_OF_RUNS, only):
        runs = Runs(arguments, scratch=scratch / "runs", images=folders["images"])
        (prepared,) = (x.parent for x in scratch.rglob("dataset_info.json"))
        reader("text", samples.texts(runs.reference), readers.text_files, same=False)
        reader("checkpoint", runs.reference, readers.checkpoint, same=True)
        reader("dataset", prepared, readers.dataset, same=True)
        for name in ("kill", "damage", "full_disk", "read_only", "two"):
            scenarios[name] = getattr(runs, name)
        scenarios |= {"outputs": runs.outputs, "two_outputs": runs.two_outputs}
    if _any(_OF_SWEEPS, only):
        sweeps = Sweeps(arguments, scratch=scratch / "sweeps")
        scenarios |= {"sweep": sweeps.kill, "two_sweeps": sweeps.two}
    if _any(_OF_PROCESSES, only):
        processes = Processes(arguments, scratch=scratch / "processes")
        scenarios |= {"processes": processes.kill, "two_processes": processes.two}
    if only is None:
        return scenarios
    unknown = sorted(set(only) - scenarios.keys())
    if unknown:
        sys.exit(f"error: --only: unknown scenarios: {', '.join(unknown)}")
    return {name: scenarios[name] for name in only}


def _any(names: tuple[str, ...], only: list[str] | None) -> bool:
    return only is None or not set(names).isdisjoint(only)


if __name__ == "__main__":
    sys.exit(main())
