"""Read the files of a folder, tar or zip by name, without unpacking.

Archive members are only read into memory, and only if they are regular files of at most
256 MiB: a member's path cannot lead outside, and a decompression bomb is refused. The
total is limited as well: an archive may unpack to 64 MiB, or 100 times its size if that
is more. Images hardly compress; the published archives unpack to less than 3 times.
"""

import contextlib
import functools
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from tqdm import tqdm

from tempseg_jax.data.codec import BadFile
from tempseg_jax.data.sources.base import file_fingerprint, stat_listing

_MAX_BYTES = 256 << 20  # of one member; the largest image of Cityscapes has 3 MB
_MIN_TOTAL = 64 << 20  # bytes that any archive may unpack to
_MAX_RATIO = 100  # unpacked bytes per byte of an archive
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20  # bytes


@runtime_checkable
class Files(Protocol):
    """Files by their '/'-separated names."""

    where: str  # the folder or archive, for messages

    def names(self) -> Set[str]:
        """Return the names of all regular files."""

    def size(self, name: str) -> int:
        """Return a file's size in bytes; 0 if there is no such file."""

    def read(self, name: str) -> bytes:
        """Return the content of one file.

        Raises:
            BadFile: If the file cannot be read.
        """

    def fingerprint(self) -> object:
        """Return a value that changes if the files change."""


class FolderFiles:
    """The files in some folders of `root`, at any depth; not all folders must exist."""

    def __init__(self, root: Path, *, folders: tuple[str, ...]):
        self.where = str(root)
        self._root = root
        self._listing = [
            (f"{folder}/{name}", size, mtime)
            for folder in folders
            if (root / folder).is_dir()
            for name, size, mtime in stat_listing(root / folder)
        ]
        self._sizes = {name: size for name, size, _ in self._listing}

    def names(self) -> Set[str]:
        """Return the names relative to `root`."""
        return self._sizes.keys()

    def size(self, name: str) -> int:
        """Return a file's size in bytes; 0 if there is no such file."""
        return self._sizes.get(name, 0)

    def read(self, name: str) -> bytes:
        """Return the content of one file."""
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise BadFile(f"{self._root / name}: {reason}") from error

    def fingerprint(self) -> object:
        """Return the name, size and modification time of every file."""
        return self._listing


class TarFiles:
    """The members of an uncompressed tar whose names start with `prefix`.

    Raises:
        ValueError: If the file is not a tar, or is truncated; raised by the first call
            of a method that needs the list of members.
    """

    def __init__(self, path: Path, *, prefix: str):
        self.where = str(path)
        self._path = path
        self._prefix = prefix
        self._members: dict[str, tarfile.TarInfo] | None = None
        self._file: BinaryIO | None = None

    def names(self) -> Set[str]:
        """Return the names without the prefix."""
        return self._index().keys()

    def size(self, name: str) -> int:
        """Return a member's size in bytes; 0 if there is no such member."""
        member = self._index().get(name)
        return member.size if member else 0

    def read(self, name: str) -> bytes:
        """Return the content of one member."""
        member = self._index().get(name)
        if member is None:
            raise BadFile(f"{self.where} has no member {self._prefix}{name}")
        _check_size(member.size, name=f"{self.where}: {name}")
        self._file.seek(member.offset_data)
        return self._file.read(member.size)

    def fingerprint(self) -> object:
        """Return the archive's name, size and modification time."""
        return file_fingerprint(self._path)

    def _index(self) -> dict[str, tarfile.TarInfo]:
        if self._members is None:
            self._file = self._path.open("rb")
            members = list(_translate_errors(self._path, self._list_members))
            self._members = {
                _clean(m.name).removeprefix(self._prefix): m
                for m in members
                if m.isreg() and _clean(m.name).startswith(self._prefix)
            }
            if not self._members:
                folders = {"/".join(_clean(m.name).split("/")[:2]) for m in members}
                raise ValueError(
                    f"{self._path} contains {', '.join(sorted(folders)[:3])}, not"
                    f" {self._prefix}; replace it by the right archive"
                )
        return self._members

    def _list_members(self) -> list[tarfile.TarInfo]:
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            members = archive.getmembers()
        # tarfile accepts an archive that was truncated between two members.
        self._file.seek(-_BLOCK, 2)
        if self._file.read().strip(b"\0"):
            raise EOFError("no end-of-archive marker")
        return members


class ZipFiles:
    """The members of a zip whose names start with `prefix`.

    Raises:
        ValueError: If the file is not a zip, or is truncated.
    """

    def __init__(self, path: Path, *, prefix: str):
        self.where = str(path)
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise _broken_archive(path, error) from error
        self._members = {
            info.filename: info
            for info in self._zip.infolist()
            if info.filename.startswith(prefix) and not info.is_dir()
        }
        _check_total(sum(info.file_size for info in self._members.values()), path=path)

    def names(self) -> Set[str]:
        """Return the names, including the prefix."""
        return self._members.keys()

    def size(self, name: str) -> int:
        """Return a member's uncompressed size; 0 if there is no such member."""
        member = self._members.get(name)
        return member.file_size if member else 0

    def read(self, name: str) -> bytes:
        """Return the content of one member, whose checksum is verified."""
        member = self._members.get(name)
        if member is None:
            raise BadFile(f"{self.where} has no member {name}")
        _check_size(member.file_size, name=f"{self.where}: {name}")
        try:
            return self._zip.read(member)
        # NotImplementedError is a RuntimeError: encryption or an unknown compression.
        # OSError and struct.error: offsets that lead outside of the file.
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            EOFError,
            RuntimeError,
            OSError,
            ValueError,
            struct.error,
        ) as error:
            raise BadFile(f"{self.where}: {name}: cannot be read ({error})") from error

    def fingerprint(self) -> object:
        """Return the archive's name, size and modification time."""
        return file_fingerprint(self._path)


def stream_tar(
    path: Path, *, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the wanted members of a tar or tgz, in their order.

    Raises:
        ValueError: If the file is not a tar, or is truncated; some members may have
            been yielded before.
    """
    read = functools.partial(_wanted_members, path, wanted)
    yield from _translate_errors(path, read)


def _wanted_members(
    path: Path, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    total = 0
    with _unzipped(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = _clean(member.name)
                total += member.size
                _check_total(total, path=path)
                if member.isreg() and wanted(name):
                    _check_size(member.size, name=f"{path}: {name}")
                    yield name, archive.extractfile(member).read()
        while rest := stream.read(_CHUNK):  # gzip verifies the checksum
            total += len(rest)
            _check_total(total, path=path)


@contextlib.contextmanager
def _unzipped(path: Path) -> Iterator[Any]:
    """Open a tar or tgz for reading, with a progress bar over the file."""
    with path.open("rb") as file:
        # Some browsers decompress a tgz that they download.
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        bar = tqdm.wrapattr(
            file,
            "read",
            total=path.stat().st_size,
            desc=f"reading {path.name}",
            disable=None,
        )
        with bar as counted:
            yield gzip.GzipFile(fileobj=counted) if compressed else counted


def _translate_errors(path: Path, read: Callable[[], Iterable]) -> Iterator:
    """Yield from `read()`; raise ValueError if the archive is damaged."""
    try:
        yield from read()
    except TooLarge:
        raise
    # ValueError: numbers in the headers of a tar; BadFile is one, and names the member.
    except (tarfile.TarError, EOFError, zlib.error, OSError, struct.error) as error:
        raise _broken_archive(path, error) from error


def _broken_archive(path: Path, error: Exception) -> ValueError:
    size = path.stat().st_size
    return ValueError(
        f"{path} is truncated or not an archive ({size:,} bytes; {error}); download it"
        " again"
    )


class TooLarge(ValueError):
    """An archive that unpacks to more than any dataset does."""


def _check_total(total: int, *, path: Path) -> None:
    limit = max(_MIN_TOTAL, _MAX_RATIO * path.stat().st_size)
    if total > limit:
        raise TooLarge(
            f"{path}: it unpacks to more than {limit:,} bytes, {_MAX_RATIO} times its "
            "size; download it again, or unpack it by hand if it can be trusted"
        )


def _check_size(size: int, *, name: str) -> None:
    if size > _MAX_BYTES:
        raise BadFile(f"{name}: {size:,} bytes exceed the limit of {_MAX_BYTES:,}")


def _clean(name: str) -> str:
    return name.removeprefix("./")
