"""Measure the throughput of the input pipeline in images per second.

    python scripts/benchmark.py data --manual_dir=VOCDIR \
        --peer="python scripts/peers/torch_loader.py --root=VOCDIR/VOCdevkit/VOC2012"

The modes are `decode_only`, in which OpenCV only decodes images and labels; `encoded`,
the whole pipeline; and `cached`, the whole pipeline with all decoded images in memory.
Every round measures each mode once, so that a change in the load of the machine affects
all modes. Standard output has one JSON object per line and mode, with the median, the
minimum and the maximum over the rounds.

--peer is a command that does the same work with another library, for the same files and
with the same number of workers. The last line that it prints must be a JSON object with
the field `images_per_s`. It is run once per round.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import re
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from tempseg_jax.cli import command
from tempseg_jax.data import pipeline
from tempseg_jax.data.catalog import Split, load_split

_EVERYTHING = 1 << 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument(
        "--dataset", default="voc", help="name of the dataset (default: %(default)s)"
    )
    parser.add_argument("--manual_dir", help="folder of the dataset's files")
    parser.add_argument(
        "--data_dir",
        help="folder of prepared datasets (default: ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--split", help="split to read (default: trainval for voc, otherwise train)"
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=16,
        help="images per batch (default: %(default)s)",
    )
    parser.add_argument(
        "--crop_size",
        type=int,
        default=416,
        help="height and width of the crops in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=os.cpu_count(),
        help="threads of the pipeline; 0 uses the main thread (default: one per CPU)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="measurements of each mode (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=1600,
        help="images per measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        help="instead of throughput, measure the resident memory after each of this "
        "many epochs",
    )
    parser.add_argument(
        "--cache_bytes",
        type=int,
        default=0,
        help="memory for decoded images, only with --epochs (default: %(default)s)",
    )
    parser.add_argument("--peer", help="command to compare with (see above)")


def run(args: argparse.Namespace) -> int:
    """Print one JSON object per mode."""
    with command.one_line_errors(debug=False):
        for name in ("batch_size", "crop_size", "rounds", "images"):
            if getattr(args, name) < 1:
                raise ValueError(f"--{name}={getattr(args, name)}: give 1 or more")
        if args.num_workers < 0:
            raise ValueError(f"--num_workers={args.num_workers}: give 0 or more")
        return _measure(args)


def _measure(args: argparse.Namespace) -> int:
    may_be_partial = args.dataset in ("voc", "cityscapes")
    split = load_split(
        args.dataset,
        split=args.split or ("trainval" if args.dataset == "voc" else "train"),
        manual_dir=args.manual_dir,
        data_dir=args.data_dir,
        **({"allow_missing": True} if may_be_partial else {}),
    )
    if args.epochs:
        return _watch_memory(split, args)
    cached = _batches(split, args, cache_bytes=_EVERYTHING)
    # After three epochs almost surely every image is in the cache.
    for _ in range(3 * len(split.examples) // args.batch_size):
        next(cached)
    modes: dict[str, Callable[[], float]] = {
        "decode_only": lambda: _decode_rate(split, args),
        "encoded": lambda: _rate(_batches(split, args, cache_bytes=0), args),
        "cached": lambda: _rate(cached, args),
    }
    if args.peer:
        modes["peer"] = lambda: _peer_rate(args.peer)
    rates: dict[str, list[float]] = {mode: [] for mode in modes}
    for _ in range(args.rounds):
        for mode, measure in modes.items():
            rates[mode].append(measure())
    for mode, values in rates.items():
        _report(mode, values, args)
    return 0


def _watch_memory(split: Split, args: argparse.Namespace) -> int:
    """Print the resident memory after each epoch, to show whether it grows."""
    batches = _batches(split, args, cache_bytes=args.cache_bytes)
    resident = []
    for _ in range(args.epochs):
        for _ in range(len(split.examples) // args.batch_size):
            next(batches)
        resident.append(resident_mib())
    print(json.dumps({"mode": "memory", "rss_mib_after_each_epoch": resident}))
    return 0


def _report(mode: str, values: list[float], args: argparse.Namespace) -> None:
    result = {
        "mode": mode,
        "images_per_s": round(statistics.median(values), 1),
        "spread": [round(min(values), 1), round(max(values), 1)],
        "num_workers": args.num_workers,
        "cores": len(os.sched_getaffinity(0)),
        "rss_mib": resident_mib(),
    }
    print(json.dumps(result), flush=True)


def resident_mib() -> int:
    """Return the resident memory of this process in MiB, as Linux reports it."""
    status = Path("/proc/self/status").read_text()
    return round(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 2**10)


def _batches(split: Split, args: argparse.Namespace, *, cache_bytes: int) -> Iterator:
    return pipeline.train_batches(
        split,
        batch_size=args.batch_size,
        crop_size=args.crop_size,
        min_scale=0.5,
        max_scale=2.0,
        cat_max_ratio=1.0,
        photometric=False,
        seed=0,
        start_step=0,
        num_workers=args.num_workers,
        cache_bytes=cache_bytes,
        on_error="raise",
        process_index=0,
        process_count=1,
    )


def _rate(batches: Iterator, args: argparse.Namespace) -> float:
    # Batches that were prefetched before the clock starts must not be counted.
    for _ in range(2 * args.num_workers + 1):
        next(batches)
    count = max(1, args.images // args.batch_size)
    start = time.perf_counter()
    for batch in itertools.islice(batches, count):
        del batch
    return count * args.batch_size / (time.perf_counter() - start)


def _decode_rate(split: Split, args: argparse.Namespace) -> float:
    records = [split.examples[i] for i in range(min(len(split.examples), args.images))]

    def decode(record: dict) -> None:
        cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR_RGB)
        cv2.imdecode(np.frombuffer(record["label"], np.uint8), cv2.IMREAD_GRAYSCALE)

    with concurrent.futures.ThreadPoolExecutor(max(1, args.num_workers)) as pool:
        start = time.perf_counter()
        list(pool.map(decode, records))
        return len(records) / (time.perf_counter() - start)


def _peer_rate(peer: str) -> float:
    result = subprocess.run(shlex.split(peer), capture_output=True, text=True)
    if result.returncode:
        raise ValueError(
            f"--peer={peer}: the command failed: {result.stderr.strip()[-200:]}"
        )
    try:
        return json.loads(result.stdout.strip().splitlines()[-1])["images_per_s"]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"--peer={peer}: the last line that it printed is not a JSON object with "
            "the field images_per_s; print one"
        ) from error
