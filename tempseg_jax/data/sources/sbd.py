"""Labels of SBD (Hariharan et al. 2011), from benchmark.tgz or unpacked."""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import codec
from tempseg_jax.data.sources import mat_file
from tempseg_jax.data.sources.base import file_fingerprint
from tempseg_jax.data.sources.files import FolderFiles, stream_tar
from tempseg_jax.io.json_files import decode_text

ARCHIVE = "benchmark.tgz"
_FOLDER = "benchmark_RELEASE/dataset"
_LISTS = ("train.txt", "val.txt")


class Sbd:
    """The class labels and lists of SBD; its images are those of VOC 2012."""

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Return whether `folder` contains the archive, packed or unpacked."""
        return (folder / _FOLDER / "cls").is_dir() or (folder / ARCHIVE).is_file()

    def __init__(self, folder: Path):
        self._archive = folder / ARCHIVE
        self._unpacked = None
        if (folder / _FOLDER / "cls").is_dir():
            self._unpacked = FolderFiles(folder / _FOLDER, folders=("cls",))
        self.where = str(folder / _FOLDER if self._unpacked else self._archive)
        self._folder = folder

    def fingerprint(self) -> object:
        """Return a value that changes if the labels or the lists change."""
        if self._unpacked:
            lists = [self._folder / _FOLDER / name for name in _LISTS]
            stats = [file_fingerprint(path) for path in lists if path.is_file()]
            return self._unpacked.fingerprint(), stats
        return file_fingerprint(self._archive)

    def ids(self) -> set[str]:
        """Return the ids of SBD's train and val lists together.

        Raises:
            ValueError: If the archive is truncated, or a list is missing.
        """
        ids: set[str] = set()
        for name in _LISTS:
            if self._unpacked:
                path = self._folder / _FOLDER / name
                text = path.read_bytes() if path.is_file() else None
            else:
                text = self._members.get(name)
            if text is None:
                raise ValueError(
                    f"{self.where}: {name} is missing; download {ARCHIVE} again"
                )
            ids.update(decode_text(text, where=f"{self.where}: {name}").split())
        return ids

    def read(self, id_: str) -> UInt8[np.ndarray, "h w"]:
        """Return the class indices of one image.

        Raises:
            BadFile: If its .mat file is missing, or contains no labels.
        """
        name = f"cls/{id_}.mat"
        if self._unpacked:
            data = self._unpacked.read(name)
        elif name in self._members:
            data = self._members[name]
        else:
            raise codec.BadFile(f"{self.where}: {name} is missing")
        return _decode(data, name=f"{self.where}: {name}")

    @functools.cached_property
    def _members(self) -> Mapping[str, bytes]:
        """Lists and .mat files (30 MB), read at once: a tgz has no random access."""
        return {
            name.removeprefix(f"{_FOLDER}/"): data
            for name, data in stream_tar(self._archive, wanted=_is_wanted)
        }


def _is_wanted(name: str) -> bool:
    inner = name.removeprefix(f"{_FOLDER}/")
    is_label = inner.startswith("cls/") and inner.endswith(".mat")
    return inner != name and (is_label or inner in _LISTS)


def _decode(data: bytes, *, name: str) -> UInt8[np.ndarray, "h w"]:
    try:
        return mat_file.read_field(data, "GTcls", "Segmentation")
    except ValueError as error:
        raise codec.BadFile(
            f"{name} contains no GTcls.Segmentation ({error})"
        ) from error
