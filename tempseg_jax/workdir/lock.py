"""The lock of a workdir: one training at a time.

The lock is `flock` on `training.lock`, which the kernel releases when the process ends,
however it ends. It holds between hosts where the network file system passes `flock` on
(NFS 4, CephFS, Lustre with `-o flock`). The file names the holder, for the message.

The filelock library leaves the file behind, so that a refused start would create a
workdir, and does not tell a lock on a moved folder from one on the folder itself.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from absl import logging

NAME = "training.lock"

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class WorkdirLock:
    """A lock that this process holds."""

    def __init__(self, path: Path, descriptor: int):
        """Wrap the open file `path`, which is locked."""
        self._path, self._descriptor = path, descriptor

    def check(self) -> None:
        """Check that the workdir still has its name.

        Raises:
            OSError: If it was renamed or deleted, so that files of this run would be
                written into another folder.
        """
        if not _is_file(self._path, self._descriptor):
            folder = self._path.parent
            raise OSError(
                f"{folder}: the workdir was renamed or deleted while its training runs;"
                " move it back to this name and start the same command again, which "
                "resumes from its last checkpoint"
            )


class NoLock:
    """For every process of a run except the first one, which holds the lock."""

    def check(self) -> None:
        """Check nothing."""


@contextmanager
def training_lock(workdir: str | Path) -> Iterator[WorkdirLock]:
    """Hold the lock of a workdir, which is created if it does not exist.

    If nothing was written into a folder that was created, it is deleted at the end.

    Raises:
        OSError: If another process holds the lock, or the workdir cannot be written.
    """
    path = Path(workdir).absolute() / NAME
    created = _create_folder(path.parent)
    descriptor = _acquire(path)
    try:
        yield WorkdirLock(path, descriptor)
    finally:
        if _is_file(path, descriptor):  # while it is locked, so nobody else has it
            with suppress(OSError):
                path.unlink()
        os.close(descriptor)
        for folder in created:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _create_folder(folder: Path) -> list[Path]:
    """Create a folder and its parents; return those that did not exist."""
    missing = [x for x in (folder, *folder.parents) if not x.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with os.fdopen(descriptor, "rb") as file:
                holder = file.read(200).decode(errors="replace").strip()
            raise OSError(
                f"{path.parent}: another training runs in this workdir "
                f"({holder or 'it is just starting'}); wait for its end, stop it, or "
                "choose another --workdir"
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            logging.warning(
                "%s: this file system supports no locks (%s); do not start two "
                "trainings in one workdir",
                path,
                error.strerror,
            )
        if not _is_file(path, descriptor):  # its holder deleted it meanwhile
            os.close(descriptor)
            continue
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        holder = f"host {socket.gethostname()}, process {os.getpid()}, since {since}\n"
        with suppress(OSError):  # a full disk: the lock holds without the text
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
        return descriptor


def _is_file(path: Path, descriptor: int) -> bool:
    """Return whether an open file is the one that has this path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False
