"""Pixels of each class in each training image, and class weights from them."""

import errno
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from absl import logging
from jaxtyping import Float32, Int64

from tempseg_jax.data import codec
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.decoder import decode
from tempseg_jax.data.subset import Chosen
from tempseg_jax.io import atomic

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

Counts = Int64[np.ndarray, "n k"]


def count(split: Split) -> Counts:
    """Return the pixels of each class in each image of a whole split.

    The counts are stored with the prepared dataset, and read from there the next time.
    If its folder cannot be written, they are counted every time, and a warning says so.
    An image that cannot be decoded has none.
    """
    stored = _file(split)
    shape = (len(split.examples), len(split.class_names))
    if stored is not None and (counts := _load(stored, shape=shape)) is not None:
        return counts
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = pool.map(functools.partial(_row, split), range(len(split.examples)))
        counts = np.stack(list(rows))
    if stored is not None:
        _store(counts, stored)
    return counts


def _load(path: Path, *, shape: tuple[int, int]) -> Counts | None:
    """Return stored counts; None if there are none or the file is damaged.

    An .npz file has a checksum, which reading compares.
    """
    try:
        with np.load(path) as arrays:
            counts = arrays["counts"]
    except (OSError, ValueError, EOFError, LookupError, BadZipFile):
        return None
    return counts if counts.shape == shape else None


def _store(counts: Counts, path: Path) -> None:
    try:
        with atomic.replacing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, counts=counts)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        logging.warning(
            "%s cannot be written (%s); the pixels of each class are counted at every "
            "start; prepare the dataset once with scripts/prepare.py",
            path,
            error.strerror,
        )


def of_subset(counts: Counts, split: Split) -> Int64[np.ndarray, "m k"]:
    """Return the rows of the images that `subset.nested_subset` chose."""
    chosen = isinstance(split.examples, Chosen)
    return counts[split.examples.indices] if chosen else counts


def _file(split: Split) -> Path | None:
    # TFDS takes long to import and is needed only to read records.
    from tempseg_jax.data.prepared import Examples

    if not isinstance(split.examples, Examples):
        return None
    return split.examples.folder / f"class_pixels-{split.examples.expression}.npz"


def _row(split: Split, index: int) -> Int64[np.ndarray, "k"]:
    classes = len(split.class_names)
    try:
        label = decode(split.examples[index], split=split)["label"]
    except codec.BadFile:
        return np.zeros(classes, np.int64)
    return np.bincount(label.ravel(), minlength=256)[:classes].astype(np.int64)


def inverse_frequency(counts: Counts) -> Float32[np.ndarray, "k"]:
    """1 / (k f) with the share f of a class in all pixels."""
    return _normalized(counts, 1 / counts.sum(axis=0).clip(1))


def median_frequency(counts: Counts) -> Float32[np.ndarray, "k"]:
    """Median of f divided by f, with f over images that have the class (Eigen 2015).

    f is the number of pixels of the class, divided by the number of pixels of the
    images in which the class occurs.
    """
    present = counts > 0
    pixels = np.sum(counts.sum(axis=1, keepdims=True) * present, axis=0)
    f = counts.sum(axis=0) / pixels.clip(1)
    occurs = f > 0
    weights = np.median(f[occurs]) / np.where(occurs, f, 1)
    return np.where(occurs, weights, 0).astype(np.float32)


def effective_number(counts: Counts) -> Float32[np.ndarray, "k"]:
    """(1 - β) / (1 - βⁿ), n images with the class, β = 0.999 (Cui et al. 2019)."""
    beta, images = 0.999, np.sum(counts > 0, axis=0)
    return _normalized(counts, (1 - beta) / (1 - beta ** images.clip(1)))


def _normalized(
    counts: Counts, weights: Float32[np.ndarray, "k"] | np.ndarray
) -> Float32[np.ndarray, "k"]:
    """Scale the weights to a mean of 1 over pixels; absent classes have weight 0."""
    pixels = counts.sum(axis=0)
    weights = np.where(pixels > 0, weights, 0)
    return (weights * pixels.sum() / max(np.sum(weights * pixels), 1e-30)).astype(
        np.float32
    )


CLASS_WEIGHTS: dict[str, Callable[[Counts], Float32[np.ndarray, "k"]] | None] = {
    "none": None,
    "inverse": inverse_frequency,
    "median": median_frequency,
    "effective": effective_number,
    "given": None,  # by objective.given_class_weights
}
"""The values of `objective.class_weights`."""
