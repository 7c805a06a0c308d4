"""Measurements of input pipelines: of this one, of OpenCV, and of other programs."""

import concurrent.futures
import itertools
import json
import math
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tempseg_jax.data.catalog import Split
from tempseg_jax.types import Batch

_IDLE_S = 0.2


class Rate(NamedTuple):
    """Throughput of one measurement."""

    images_per_s: float
    cpu_ms: float | None  # processor time per image; None if it is not known


def batches_rate(
    batches: Iterator[Batch], *, images: int, batch_size: int, num_workers: int
) -> Rate:
    """Measure a pipeline that is already running."""
    _wait_until_idle()
    # Batches that were prefetched before the clock starts must not be counted.
    for _ in range(2 * num_workers + 1):
        next(batches)
    count = max(1, images // batch_size)
    start, cpu = time.perf_counter(), time.process_time()
    for batch in itertools.islice(batches, count):
        del batch
    return _since(start, cpu, images=count * batch_size)


def _wait_until_idle() -> None:
    """Wait for the threads of other pipelines, which fill their buffers once more."""
    used = -math.inf
    while time.process_time() - used > _IDLE_S / 10:
        used = time.process_time()
        time.sleep(_IDLE_S)


def _since(start: float, cpu: float, *, images: int) -> Rate:
    return Rate(
        images / (time.perf_counter() - start),
        1e3 * (time.process_time() - cpu) / images,
    )


def decode_rate(split: Split, *, images: int, num_workers: int) -> Rate:
    """Measure OpenCV, decoding at most the first `images` images and labels."""
    records = [split.examples[i] for i in range(min(len(split.examples), images))]

    def decode(record: dict) -> None:
        cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR_RGB)
        cv2.imdecode(np.frombuffer(record["label"], np.uint8), cv2.IMREAD_GRAYSCALE)

    _wait_until_idle()
    with concurrent.futures.ThreadPoolExecutor(max(1, num_workers)) as pool:
        start, cpu = time.perf_counter(), time.process_time()
        list(pool.map(decode, records))
        return _since(start, cpu, images=len(records))


def peer_rate(peer: str) -> Rate:
    """Run another program, and return the rate that it prints.

    Raises:
        ValueError: If the program fails, or does not print its rate last.
    """
    result = subprocess.run(shlex.split(peer), capture_output=True, text=True)
    if result.returncode:
        raise ValueError(
            f"--peer={peer}: the command failed: {result.stderr.strip()[-200:]}"
        )
    try:
        last = json.loads(result.stdout.strip().splitlines()[-1])
        return Rate(last["images_per_s"], None)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"--peer={peer}: the last line that it printed is not a JSON object with "
            "the field images_per_s; print one"
        ) from error


def resident_mib() -> int:
    """Return the resident memory of this process in MiB, as Linux reports it."""
    status = Path("/proc/self/status").read_text()
    return round(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 2**10)
