"""The interface between the files of a dataset and their preparation."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.io.folder_files import walk


class Record(TypedDict):
    """One example as it is stored: not decoded, so that reading it is fast."""

    id: str
    image: bytes  # the content of the JPEG or PNG file
    label: bytes  # gray PNG: 0 to k - 1, or IGNORE_LABEL (void); all void if unlabeled


@dataclasses.dataclass(frozen=True)
class Entry:
    """One example, whose files are not opened before `load` is called."""

    id: str
    nbytes: int  # size of the image file; 0 if the file does not exist
    load: Callable[[], Record]  # raises BadFile if a file cannot be used


@runtime_checkable
class Source(Protocol):
    """The files of one dataset: found and listed, but not read."""

    name: str
    where: str  # the folder or archives, for messages
    splits: tuple[str, ...]  # disjoint, as stored; `split_expression` combines them

    def fingerprint(self) -> str:
        """Return a digest of the files and of every option that changes a record."""

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the split's examples in their official order."""

    def notes(self) -> Sequence[str]:
        """Return sentences on files that are missing or that no split uses.

        Users are shown them when the dataset is prepared, trained on and evaluated on.
        """

    def split_expression(self, split: str) -> str:
        """Return the stored splits that `split` consists of, joined by '+'.

        Raises:
            ValueError: If there is no such split.
        """

    def classes(self) -> tuple[tuple[str, ...], UInt8[np.ndarray, "k 3"]]:
        """Return class names and RGB colors; final after every entry was loaded."""


def data_home(data_dir: str | None) -> Path:
    """Return the folder where TFDS keeps datasets.

    None is TFDS_DATA_DIR, or ~/tensorflow_datasets if that is not set.
    """
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(data_dir or default).expanduser()


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the parts' `repr`."""
    joined = "\n".join(repr(part) for part in parts)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


def stat_listing(folder: str | os.PathLike[str]) -> list[tuple[str, int, int]]:
    """Return (relative path, bytes, mtime in ns) of every file in a folder, sorted.

    A link to a file that does not exist has the size and time of the link.

    Stands for the content of the files, and is fast enough to compare at every start.
    """
    listing = []
    for root, names in walk(folder, hidden=True):
        for name in names:
            path = os.path.join(root, name)
            try:
                stat = os.stat(path)
            except OSError:  # a link to a file that does not exist
                stat = os.lstat(path)
            relative = os.path.relpath(path, folder)
            listing.append((relative, stat.st_size, stat.st_mtime_ns))
    return sorted(listing)


def file_fingerprint(path: Path) -> tuple[str, int, int]:
    """Return the name, size in bytes and modification time in ns of a file."""
    stat = path.stat()
    return path.name, stat.st_size, stat.st_mtime_ns
