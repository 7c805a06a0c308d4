"""One way to read a folder, a tar or a zip: by member name, nothing unpacked."""

from collections.abc import Set
from pathlib import Path
from typing import Protocol

from tempseg_jax.data.codec import BadFile
from tempseg_jax.data.source import stat_listing


class Files(Protocol):
    """Files by their '/'-separated names, wherever they lie."""

    where: str

    def names(self) -> Set[str]:
        """Return the names of all regular files."""

    def read(self, name: str) -> bytes:
        """Return one file's bytes; raise BadFile, naming it, if that fails."""

    def fingerprint(self) -> object:
        """Return what changes when the files change."""


class FolderFiles:
    """The files below a folder."""

    def __init__(self, root: Path):
        self.where = str(root)
        self._root = root
        self._listing = stat_listing(root)
        self._names = {name.replace("\\", "/") for name, _, _ in self._listing}

    def names(self) -> Set[str]:
        """Return the names relative to the folder."""
        return self._names

    def read(self, name: str) -> bytes:
        """Return one file's bytes."""
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            raise BadFile(f"{self._root / name}: {error.strerror}") from error

    def fingerprint(self) -> object:
        """Return every file's name, size and time."""
        return self._listing
