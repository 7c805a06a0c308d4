"""Write a folder once, also if several processes need it at the same time."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock
from absl import logging


def prepare_once(final: Path, write: Callable[[Path], None]) -> None:
    """Write the folder `final` if it does not exist.

    The files are written to a temporary folder beside it, which gets its final name
    last, so that an interrupted preparation is never mistaken for a finished one. If
    several processes call this at once, one prepares and the others wait.

    `atomic.replacing` does not fit: its temporary name differs by process, so the files
    of a process that was killed would never be deleted.

    Args:
        final: The folder; its parent is created.
        write: Writes the content to the folder that it is given, which exists. If it
            raises, nothing is kept.

    Raises:
        OSError: If the parent folder cannot be written.
    """
    if final.is_dir():
        return
    path = final.parent / "preparing.lock"
    lock = filelock.FileLock(path)
    _acquire(lock, path, final)
    try:
        if not final.is_dir():
            _write_and_rename(final, write)
    finally:
        if not final.is_dir():  # a refused preparation leaves no files
            path.unlink(missing_ok=True)
        lock.release()
        for folder in (final.parent, final.parent.parent):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def _acquire(lock: filelock.BaseFileLock, path: Path, final: Path) -> None:
    """Acquire the lock; its folder and file exist afterwards."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            logging.warning("waiting for another process to prepare %s", final)
            lock.acquire()
        if path.exists():
            return
        lock.release()  # the process that held it failed, and deleted the file


def _write_and_rename(final: Path, write: Callable[[Path], None]) -> None:
    temporary = final.with_name(f"{final.name}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    try:
        temporary.mkdir()
        write(temporary)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
