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
        OSError: the file or folder cannot be written.
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
