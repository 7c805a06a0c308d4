"""Atomic writes: a file or folder appears whole, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write to a temporary path that replaces `path` when the block ends.

    The temporary path lies in the same folder, which is created, and has the same
    suffix, by which some libraries choose a format. The block creates either a file
    there, which is flushed to disk, or a folder; a folder replaces nothing but an
    empty one. If the block raises, the temporary path is deleted and `path` is left as
    it was.

    Raises:
        OSError: If the file or folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        if partial.is_file():
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def adding_files(folder: str | Path) -> Iterator[Path]:
    """Write several files to a temporary folder; move them to `folder` at the end.

    The temporary folder is next to `folder`, which is created and keeps its other
    files. Files are moved in reverse alphabetical order, so that `model.onnx.data` is
    there before `model.onnx`. If the block raises, `folder` is left as it was.

    Raises:
        OSError: If the files cannot be written.
    """
    folder = Path(folder).absolute()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        folder.mkdir(exist_ok=True)
        for path in sorted(partial.iterdir(), reverse=True):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
