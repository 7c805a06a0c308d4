"""What a dataset's files offer to the TFDS builder."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import UInt8


class Record(TypedDict):
    """One example as it is stored: undecoded, so that reading it is cheap."""

    id: str
    image: bytes  # the file's own JPEG or PNG
    label: bytes  # gray PNG: 0 to k - 1, or IGNORE_LABEL; all void where unlabelled


@dataclasses.dataclass(frozen=True)
class Entry:
    """One example to be, whose files are opened only when it is loaded."""

    id: str
    nbytes: int  # of its image; 0 where there is none
    load: Callable[[], Record]  # raises BadFile


@runtime_checkable
class Source(Protocol):
    """The files of one dataset, found and listed but not yet read."""

    name: str
    where: str  # for messages: the folder or archives
    splits: tuple[str, ...]  # stored; disjoint, combined by `split_expression`

    def fingerprint(self) -> str:
        """Return a digest of the files and of every option that shapes a record."""

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the split's examples in their official order."""

    def split_expression(self, split: str) -> str:
        """Return `split` in terms of `splits`, joined by '+'.

        Raises:
            ValueError: there is no such split.
        """

    def classes(self) -> tuple[tuple[str, ...], UInt8[np.ndarray, "k 3"]]:
        """Return names and colors; known for certain once every entry is loaded."""


def data_home(data_dir: str | None) -> Path:
    """Return where TFDS keeps datasets: None is TFDS_DATA_DIR or its usual place."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(data_dir or default).expanduser()


def digest(*parts: object) -> str:
    """Return a short digest of the parts' representations."""
    joined = "\n".join(repr(part) for part in parts)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


def stat_listing(folder: str | os.PathLike[str]) -> list[tuple[str, int, int]]:
    """Return (relative path, bytes, mtime in ns) of every file below, sorted.

    It stands for the files' contents: cheap enough to compare at every start.
    """
    listing = []
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = os.path.join(root, name)
            stat = os.stat(path)
            relative = os.path.relpath(path, folder)
            listing.append((relative, stat.st_size, stat.st_mtime_ns))
    return sorted(listing)
