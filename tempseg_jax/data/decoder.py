"""From undecoded records to arrays, with a cache that threads share."""

import threading

from absl import logging

from tempseg_jax.data import codec
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.sources.base import Record
from tempseg_jax.data.transforms import Example

ON_ERROR = ("raise", "skip")


def decode(record: Record, *, split: Split) -> Example:
    """Return a record's image and label.

    Raises:
        BadFile: either cannot be decoded, or their sizes differ; the message names the
            record.
    """
    name = f"{split.dataset} {split.name}: {record['id']}"
    image = codec.decode_image(record["image"], name=f"{name} (image)")
    label = codec.decode_label(record["label"], name=f"{name} (label)")
    # Preparing compares what the headers say, and decoders may turn for more reasons.
    if image.shape[:2] != label.shape:
        (height, width), (rows, columns) = image.shape[:2], label.shape
        raise codec.BadFile(
            f"{name}: the image decodes to {width}x{height} pixels, but its label has"
            f" {columns}x{rows}; store the image upright, without a rotation tag"
        )
    return {"image": image, "label": label}


class Decoder:
    """Index -> decoded example; keeps the first that fit into `cache_bytes`.

    What is kept stays: with a new order every epoch, replacing old by new would throw
    out what is about to be asked for.
    """

    def __init__(self, split: Split, *, cache_bytes: int, on_error: str):
        if on_error not in ON_ERROR:
            raise ValueError(f"data.on_error={on_error!r}: must be one of {ON_ERROR}")
        self._split = split
        self._skip = on_error == "skip"
        self._cache: dict[int, Example] = {}
        self._room = cache_bytes
        self._lock = threading.Lock()
        self._skipped: set[int] = set()

    def __call__(self, index: int) -> Example:
        """Return the example, or with 'skip' the next one that can be decoded.

        Raises:
            ValueError: it cannot be decoded, or with 'skip' none can.
        """
        count = len(self._split.examples)
        for candidate in range(index, index + count):
            candidate %= count
            try:
                return self._cache.get(candidate) or self._decoded(candidate)
            except codec.BadFile as error:
                if not self._skip:
                    raise ValueError(
                        f"{error}; repair it, or set data.on_error=skip to leave it out"
                    ) from error
                self._count(candidate, error)
        raise ValueError(
            f"{self._split.dataset} {self._split.name}: no image can be decoded"
        )

    def _decoded(self, index: int) -> Example:
        example = decode(self._split.examples[index], split=self._split)
        size = example["image"].nbytes + example["label"].nbytes
        with self._lock:
            if size <= self._room and index not in self._cache:
                self._room -= size
                self._cache[index] = example
        return example

    def _count(self, index: int, error: codec.BadFile) -> None:
        with self._lock:
            first = index not in self._skipped
            self._skipped.add(index)
            count = len(self._skipped)
        if first:
            logging.warning("%s; skipped (%d so far)", error, count)
