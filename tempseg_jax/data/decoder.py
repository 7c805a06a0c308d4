"""Decode records to arrays, with a cache that all threads share."""

import threading

from absl import logging

from tempseg_jax.data import codec, problem_files
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.sources.base import Record
from tempseg_jax.data.tiles import Tiles
from tempseg_jax.data.transforms import CropSource, Example
from tempseg_jax.types import IGNORE_LABEL


def decode(record: Record, *, split: Split) -> Example:
    """Return the image and the label of a record.

    Raises:
        BadFile: If either cannot be decoded, or their sizes differ. The message names
            the record.
    """
    name = f"{split.dataset} {split.name}: {record['id']}"
    image = codec.decode_image(record["image"], name=f"{name} (image)")
    label = codec.decode_label(record["label"], name=f"{name} (label)")
    # Preparation compared only the sizes in the headers; a decoder may rotate an image
    # because of other tags than those it read.
    if image.shape[:2] != label.shape:
        (height, width), (rows, columns) = image.shape[:2], label.shape
        raise codec.BadFile(
            f"{name}: the image decodes to {width}x{height} pixels, but its label has"
            f" {columns}x{rows}; store the image upright, without a rotation tag"
        )
    return {"image": image, "label": label}


def has_labels(split: Split) -> bool:
    """Return whether any pixel is not void; labels are read up to the first one.

    Raises:
        BadFile: If a label cannot be decoded.
    """
    name = f"{split.dataset} {split.name}"
    return any(
        (
            codec.decode_label(x["label"], name=f"{name}: {x['id']}") != IGNORE_LABEL
        ).any()
        for x in split.examples
    )


class Decoder:
    """Decode examples by index, caching the first ones that fit into `cache_bytes`.

    Cached examples are never replaced: an epoch uses each example once, so replacing
    one by the example just decoded would drop what the epoch may still need. If there
    are tiles, the examples that do not fit are read from them.
    """

    def __init__(
        self, split: Split, *, tiles: Tiles | None, cache_bytes: int, on_error: str
    ):
        problem_files.check_on_error(on_error)
        self._split = split
        self._tiles = tiles
        self._skip = on_error == "skip"
        self._cache: dict[int, Example] = {}
        self._free_bytes = cache_bytes
        self._lock = threading.Lock()
        self._skipped: set[int] = set()

    def __call__(self, index: int) -> CropSource:
        """Return the example, or with 'skip' the next one that can be decoded.

        Raises:
            ValueError: If it cannot be decoded, or with 'skip', if none can.
        """
        count = len(self._split.examples)
        for candidate in range(index, index + count):
            candidate %= count
            try:
                return self._cache.get(candidate) or self._decode(candidate)
            except codec.BadFile as error:
                if not self._skip:
                    raise ValueError(
                        f"{error}; repair it, or {problem_files.SKIP}"
                    ) from error
                self._log_skipped(candidate, error)
        raise ValueError(
            f"{self._split.dataset} {self._split.name}: no image can be decoded"
        )

    def _decode(self, index: int) -> CropSource:
        if self._tiles is not None and self._tiles.nbytes(index) > self._free_bytes:
            return self._tiles[index]
        example = decode(self._split.examples[index], split=self._split)
        size = example["image"].nbytes + example["label"].nbytes
        with self._lock:
            if size <= self._free_bytes and index not in self._cache:
                self._free_bytes -= size
                self._cache[index] = example
        return example

    def _log_skipped(self, index: int, error: codec.BadFile) -> None:
        with self._lock:
            first = index not in self._skipped
            self._skipped.add(index)
            count = len(self._skipped)
        if first:
            logging.warning("%s; skipped (%d so far)", error, count)
