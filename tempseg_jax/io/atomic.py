"""Atomic writes: a file or folder appears whole, or not at all."""

import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write to a temporary path that replaces `path` when the block ends.

    The temporary path lies in the same folder, which is created, and has the same
    suffix, by which some libraries choose a format. The block creates either a file
    there, which is flushed to disk, or a folder; a folder replaces nothing but an
    empty one. If the block raises, the temporary path is deleted and `path` is left as
    it was. If `path` is a symbolic link, the file that it points to is replaced.

    Raises:
        OSError: If the file or folder cannot be written.
    """
    path = Path(path)
    # Processes in different containers may have the same id, so the name is random. The
    # stem is cut because a file name has at most 255 bytes.
    name = _partial_name(path, secrets.token_hex(4))
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(
            f"{path}: it is no file but a device or pipe; choose another path"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(name)
    try:
        yield partial
        if partial.is_file():
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        # A failed write names no file, and a failed open the temporary one.
        if isinstance(error, OSError) and error.errno:
            if not error.filename or str(error.filename) == str(partial):
                error.filename = str(path)
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise


def delete_leftovers(path: str | Path) -> None:
    """Delete what killed processes left of writing `path`, which nobody else writes."""
    path = Path(path)
    pattern = _partial_name(Path(glob.escape(path.name)), "*")
    for leftover in path.parent.glob(pattern):
        with suppress(OSError):
            leftover.unlink()


def _partial_name(path: Path, random: str) -> str:
    return f".{path.stem[:32]}.{random}.partial{path.suffix}"


def sync_folder(folder: Path) -> None:
    """Flush the names of a folder's files to disk, where the file system allows it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems refuse it for folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def adding_files(folder: str | Path, *, mark: str | None = None) -> Iterator[Path]:
    """Write several files to a temporary folder; move them to `folder` at the end.

    The temporary folder lies in `folder`, which is created and keeps its other files.
    Files are moved in reverse alphabetical order, so that `model.onnx.data` is there
    before `model.onnx`. If the block raises, `folder` is left as it was.

    Args:
        folder: The folder.
        mark: The name of a file by which a folder of the same kind is recognized. Only
            where it exists are files of the same names replaced. None: everywhere.

    Raises:
        OSError: If the files cannot be written.
        ValueError: If the folder has one of the files, but not `mark`.
    """
    folder = Path(folder).absolute()
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=folder))
    try:
        yield partial
        paths = sorted(partial.iterdir(), reverse=True)
        taken = [path.name for path in paths if (folder / path.name).exists()]
        if mark is not None and taken and not (folder / mark).exists():
            raise ValueError(
                f"{folder / taken[-1]}: would be replaced, but is of another kind, "
                f"because the folder has no {mark}; choose another folder"
            )
        for path in paths:
            path.replace(folder / path.name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if new:
            with suppress(OSError):  # another process has written files there
                folder.rmdir()
        raise
    shutil.rmtree(partial, ignore_errors=True)
