"""Train for a long time on generated scenes, and check that memory stays flat.

    python scripts/soak.py --minutes=120

Training logs, saves and evaluates as always, and the resident memory of its process is
read every second. After the warm-up, the time is divided into equal parts. The check
fails, with exit code 1, if the median or the 95th percentile of a part is more than 2 %
above that of the first part, or if training ends by itself. The largest reading is
printed too; it depends on how many readings fall into a save. SIGTERM or Ctrl-C ends
the check early; the table then shows the shorter time. Further flags are those of
training, such as --config.precision=bfloat16.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLAT = 0.02  # allowed growth, as a fraction
PARTS = 6
_SETTINGS = {
    "steps": 10_000_000,  # more than fit into the time
    "data.batch_size": 4,
    "data.crop_size": 64,
    "save_every_steps": 50,
    "evaluate_every_epochs": 1.0,
}


def main() -> int:
    """Train, watch the memory, and print the table; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120, help="whole duration")
    parser.add_argument(
        "--warmup", type=float, default=10, help="minutes that are not compared"
    )
    args, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="tempseg_soak_") as folder:
        samples, code, end = watch(train(Path(folder), flags), args.minutes * 60)
    if code or not samples:
        print(f"training ended with exit code {code}:\n{end}")
        return 1
    seconds = samples[-1][0]
    print(f"{seconds / 60:.1f} minutes; {end.splitlines()[-1]}")
    kept = [sample for sample in samples if sample[0] >= args.warmup * 60]
    parts = divide(kept, PARTS)
    if not parts:
        print(f"only {seconds / 60:.1f} minutes, which the warm-up takes")
        return 1
    growth = report(parts)
    print(f"largest growth after the warm-up: {growth:.2%} (allowed: {FLAT:.0%})")
    return int(growth > FLAT)


def train(folder: Path, flags: list[str]) -> subprocess.Popen:
    """Start the training, whose output goes to a file of the folder."""
    settings = [f"--config.{name}={value}" for name, value in _SETTINGS.items()]
    command = [sys.executable, "-m", "tempseg_jax.main", "--config=configs/demo.py"]
    command += [f"--workdir={folder / 'run'}", *settings]
    command += [f"--config.data.data_dir={folder / 'data'}", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches it through `watch` only
        )
    child.log = folder / "log"
    return child


def watch(
    child: subprocess.Popen, seconds: float
) -> tuple[list[tuple[float, int]], int, str]:
    """Read the memory every second, then stop the training.

    Returns:
        (seconds since the start, bytes of resident memory) of each reading, the exit
        code of training, and the end of its output.
    """
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopped.append(number))
    samples, start = [], time.monotonic()
    while child.poll() is None and not stopped:
        elapsed = time.monotonic() - start
        if elapsed > seconds:
            break
        memory = resident(child.pid)
        samples.append((elapsed, memory))
        if len(samples) % 60 == 0:
            print(f"{elapsed / 60:.0f} min: {memory / 2**20:.1f} MiB", flush=True)
        time.sleep(1)
    early = child.poll() is not None
    if not early:
        child.terminate()
    code = child.wait()
    text = child.log.read_text(errors="replace")[-2000:]
    return samples, (code or 1) if early else code, text


def resident(pid: int) -> int:
    """Return the bytes of resident memory of a process; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    (size,) = [x.split()[1] for x in lines if x.startswith("VmRSS:")] or [0]
    return int(size) * 1024


def divide(
    samples: list[tuple[float, int]], count: int
) -> list[list[tuple[float, int]]]:
    """Divide readings into parts of equal length; [] if there are too few."""
    size = len(samples) // count
    return [samples[i * size : (i + 1) * size] for i in range(count)] if size else []


def report(parts: list[list[tuple[float, int]]]) -> float:
    """Print the memory of each part, and return the largest growth as a fraction."""
    print("| minutes | median | 95 % | largest |\n| --- | ---: | ---: | ---: |")
    rows = []
    for part in parts:
        sizes = sorted(memory for _, memory in part)
        high = sizes[min(len(sizes) - 1, round(0.95 * len(sizes)))]
        rows.append((statistics.median(sizes), high))
        cells = " | ".join(f"{x / 2**20:.1f} MiB" for x in (*rows[-1], sizes[-1]))
        print(f"| {part[0][0] / 60:.0f} to {part[-1][0] / 60:.0f} | {cells} |")
    return max(
        now / first - 1 for row in rows for now, first in zip(row, rows[0], strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
