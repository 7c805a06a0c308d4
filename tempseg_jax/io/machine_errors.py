"""Errors of reading that say nothing about the files that were read."""

import errno
import os

_TRANSIENT = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}
"""Errors of the machine or the network."""

_PERMISSION = {errno.EACCES, errno.EPERM}


def reraise(error: Exception, *, path: str | os.PathLike[str]) -> None:
    """Raise an error of the machine, of the network or of permissions; pass others.

    Libraries raise errors of their own, with the system's message or from its error.
    Those are replaced by an OSError.

    Args:
        error: What reading a file has raised.
        path: The file or folder.

    Raises:
        OSError, MemoryError: If the error does not mean that the file is damaged.
    """
    if isinstance(error, MemoryError | PermissionError):
        raise error
    if isinstance(error, OSError) and error.errno in _TRANSIENT:
        raise error
    if reason := _reason(error):
        raise OSError(
            f"{path}: cannot be read ({reason}); the files need not be damaged: try"
            " again when the cause is removed"
        ) from error


def _reason(error: BaseException | None) -> str | None:
    """Return the system's message in an error or in those that it was raised from."""
    while error is not None:
        for code in _TRANSIENT | _PERMISSION:
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                return os.strerror(code)
        error = error.__cause__ or error.__context__
    return None
