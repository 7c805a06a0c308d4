"""One way to read a folder, a tar or a zip: by name, nothing unpacked.

Members are only ever read into memory, by names that we ask for, and only if they are
regular files of a plausible size: no path can escape and no bomb can fill the disk.
"""

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from tqdm import tqdm

from tempseg_jax.data.codec import BadFile
from tempseg_jax.data.sources.base import stat_listing

_LARGEST = 256 << 20  # bytes of one member; Cityscapes' largest image has 3 MB
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20


@runtime_checkable
class Files(Protocol):
    """Files by their '/'-separated names, wherever they lie."""

    where: str

    def names(self) -> Set[str]:
        """Return the names of all regular files."""

    def size(self, name: str) -> int:
        """Return a file's bytes, as its entry says; 0 if there is no such file."""

    def read(self, name: str) -> bytes:
        """Return one file's bytes; raise BadFile, naming it, if that fails."""

    def fingerprint(self) -> object:
        """Return what changes when the files change."""


class FolderFiles:
    """The files below some folders of `root`."""

    def __init__(self, root: Path, *, folders: tuple[str, ...]):
        self.where = str(root)
        self._root = root
        self._listing = [
            (f"{folder}/{name}", size, mtime)
            for folder in folders
            for name, size, mtime in stat_listing(root / folder)
        ]
        self._sizes = {name: size for name, size, _ in self._listing}

    def names(self) -> Set[str]:
        """Return the names relative to `root`."""
        return self._sizes.keys()

    def size(self, name: str) -> int:
        """Return a file's bytes."""
        return self._sizes.get(name, 0)

    def read(self, name: str) -> bytes:
        """Return one file's bytes."""
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise BadFile(f"{self._root / name}: {reason}") from error

    def fingerprint(self) -> object:
        """Return every file's name, size and time."""
        return self._listing


class TarFiles:
    """The members of an uncompressed tar whose names begin with `prefix`.

    Raises:
        ValueError: it is no tar, or truncated (when members are first asked for).
    """

    def __init__(self, path: Path, *, prefix: str):
        self.where = str(path)
        self._path = path
        self._prefix = prefix
        self._members: dict[str, tarfile.TarInfo] | None = None
        self._file: BinaryIO | None = None

    def names(self) -> Set[str]:
        """Return the names after the prefix."""
        return self._index().keys()

    def size(self, name: str) -> int:
        """Return a member's bytes, as its header says."""
        member = self._index().get(name)
        return member.size if member else 0

    def read(self, name: str) -> bytes:
        """Return one member's bytes."""
        member = self._index().get(name)
        if member is None:
            raise BadFile(f"{self.where}: {self._prefix}{name}: no such member")
        _check_size(member.size, name=f"{self.where}: {name}")
        self._file.seek(member.offset_data)
        return self._file.read(member.size)

    def fingerprint(self) -> object:
        """Return the archive's name, size and time."""
        return _stat(self._path)

    def _index(self) -> dict[str, tarfile.TarInfo]:
        if self._members is None:
            self._file = self._path.open("rb")
            members = list(_whole(self._path, self._list_members))
            self._members = {
                _clean(m.name).removeprefix(self._prefix): m
                for m in members
                if m.isreg() and _clean(m.name).startswith(self._prefix)
            }
            if not self._members:
                found = sorted(
                    {"/".join(_clean(m.name).split("/")[:2]) for m in members}
                )
                raise ValueError(
                    f"{self._path}: holds {', '.join(found[:3])}, not {self._prefix};"
                    " is it another archive?"
                )
        return self._members

    def _list_members(self) -> list[tarfile.TarInfo]:
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            members = archive.getmembers()
        # tarfile takes an archive that ends between two members for a whole one.
        self._file.seek(-_BLOCK, 2)
        if self._file.read().strip(b"\0"):
            raise EOFError("no end-of-archive mark")
        return members


class ZipFiles:
    """The members of a zip whose names begin with `prefix`.

    Raises:
        ValueError: it is no zip, or truncated: the directory is at its end.
    """

    def __init__(self, path: Path, *, prefix: str):
        self.where = str(path)
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise _broken(path, error) from error
        self._members = {
            info.filename: info
            for info in self._zip.infolist()
            if info.filename.startswith(prefix) and not info.is_dir()
        }

    def names(self) -> Set[str]:
        """Return the names, with the prefix."""
        return self._members.keys()

    def size(self, name: str) -> int:
        """Return a member's unpacked bytes, as the directory says."""
        member = self._members.get(name)
        return member.file_size if member else 0

    def read(self, name: str) -> bytes:
        """Return one member's bytes, whose checksum is right."""
        member = self._members.get(name)
        if member is None:
            raise BadFile(f"{self.where}: {name}: no such member")
        _check_size(member.file_size, name=f"{self.where}: {name}")
        try:
            return self._zip.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise BadFile(f"{self.where}: {name}: cannot be read ({error})") from error

    def fingerprint(self) -> object:
        """Return the archive's name, size and time."""
        return _stat(self._path)


def stream_tar(
    path: Path, *, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the wanted members of a tar, compressed or not, in order.

    Raises:
        ValueError: it is no tar, or truncated; other members may have come before.
    """

    def members() -> Iterator[tuple[str, bytes]]:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"  # a browser may have unpacked it
            file.seek(0)
            bar = tqdm.wrapattr(
                file,
                "read",
                total=path.stat().st_size,
                desc=f"reading {path.name}",
                disable=None,
            )
            with bar as counted:
                stream = gzip.GzipFile(fileobj=counted) if compressed else counted
                with tarfile.open(fileobj=stream, mode="r|") as archive:
                    for member in archive:
                        name = _clean(member.name)
                        if member.isreg() and wanted(name):
                            _check_size(member.size, name=f"{path}: {name}")
                            yield name, archive.extractfile(member).read()
                while stream.read(_CHUNK):  # the checksum is at the end
                    pass

    yield from _whole(path, members)


def _whole(path: Path, read: Callable[[], Iterator]) -> Iterator:
    """Yield from `read`, turning every sign of a broken archive into one message."""
    try:
        yield from read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> ValueError:
    size = path.stat().st_size
    return ValueError(
        f"{path}: truncated or no archive ({size:,} bytes; {error}); get it again"
    )


def _check_size(size: int, *, name: str) -> None:
    if size > _LARGEST:
        raise BadFile(f"{name}: {size:,} bytes is implausibly large")


def _clean(name: str) -> str:
    return name.removeprefix("./")


def _stat(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return path.name, stat.st_size, stat.st_mtime_ns
