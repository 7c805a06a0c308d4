"""Inject faults into training, evaluation, prediction and all readers of files.

    python scripts/faults.py --minutes=10 --seed=0

Processes are killed, disks are full or read-only, files are damaged, and two programs
run at once. An injection is survived if what is left or read is equal to that of an
undisturbed run; it is refused if the program ends with exit code 1 and one line. Any
other outcome is a finding: another result without a word, a traceback, a hang. The
command prints a table, with the seed that repeats each finding, and ends with exit
code 1 if there is any. docs/reliability.md says what is promised.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["GLIBC_TUNABLES"] = ""  # no restart to get huge pages
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

from fault_parts import readers, samples
from fault_parts.campaign import Campaign
from fault_parts.runs import Runs


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
    import tempseg_jax.main  # noqa: F401  # once, before processes are forked

    only = args.only.split(",") if args.only else None
    scenarios = build(scratch, only)
    campaign, used = Campaign(), dict.fromkeys(scenarios, 0.0)
    number = dict.fromkeys(scenarios, 0)
    first = args.seed * 1_000_000 if args.first is None else args.first
    end = time.monotonic() + args.minutes * 60
    while time.monotonic() < end:
        left = [x for x in scenarios if args.count is None or number[x] < args.count]
        if not left:
            break
        name = min(left, key=used.get)
        start = time.monotonic()
        scenarios[name](campaign, name, first + number[name])
        used[name] += time.monotonic() - start
        number[name] += 1
    print(campaign.table(), flush=True)
    return int(bool(campaign.findings))


def build(scratch: Path, only: list[str] | None) -> dict:
    """Return the scenarios by name; what they share is made once."""
    scenarios = {}
    folders = samples.write(scratch / "samples")
    copies = scratch / "copies"
    for name in ("images", "masks", "weights", "archives", "mat"):
        scenarios[name] = folders[name], getattr(readers, name), False
    arguments = samples.training(folders["dataset"], scratch / "prepared")
    needed = {"text", "checkpoint", "dataset", "kill", "damage", "full_disk"}
    needed |= {"read_only", "two", "outputs"}
    runs = None
    if only is None or needed & set(only):
        runs = Runs(arguments, scratch=scratch / "runs", images=folders["images"])
        (prepared,) = (x.parent for x in scratch.rglob("dataset_info.json"))
        scenarios["text"] = samples.texts(runs.reference), readers.text_files, False
        scenarios["checkpoint"] = runs.reference, readers.checkpoint, True
        scenarios["dataset"] = prepared, readers.dataset, True
    chosen = {}
    for name, (folder, what, same) in scenarios.items():
        if only is None or name in only:
            reader = readers.Reader(folder, what, same=same)
            chosen[name] = lambda c, n, s, r=reader: r(c, n, s, copies)
    for name in ("kill", "damage", "full_disk", "read_only", "two", "outputs"):
        if runs is not None and (only is None or name in only):
            chosen[name] = getattr(runs, name)
    return chosen


if __name__ == "__main__":
    sys.exit(main())
