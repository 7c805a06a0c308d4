"""Download large files: interrupted downloads resume, and digests are verified.

A file gets its final name only after its digest was verified. An unfinished file, whose
name ends in `.part`, is kept after a failure so that the next call resumes it.

The pooch library (1.9) verifies digests, but starts an interrupted download from zero,
does not check the free disk space, and does not keep two processes from downloading the
same file twice. TFDS's download manager also starts again from zero.
"""

import dataclasses
import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import filelock
from tqdm import tqdm

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 60  # seconds without receiving a byte


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A published file whose content never changes."""

    url: str
    algorithm: str  # of the digest: "sha256" or "md5"
    digest: str  # hexadecimal
    size: int | None = None  # bytes; None if it is not published

    @property
    def name(self) -> str:
        """Return the file name, which is the last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


def fetch(remote: RemoteFile, *, folder: Path, folder_setting: str) -> Path:
    """Return the path of the file in `folder`, downloading it if it is not there.

    An existing file is returned without computing its digest if it has the published
    size, or if no size is published. If several processes call this at once, one
    downloads and the others wait.

    Args:
        remote: The file to download.
        folder: Where to keep it; created if it does not exist.
        folder_setting: What the user sets to choose another folder, for the error
            message when the disk is full.

    Raises:
        OSError: If the download fails or the disk is too small.
        ValueError: If the server's file does not have the published digest.
    """
    target = folder / remote.name
    if _is_complete(target, remote):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / f"{remote.name}.lock"):
        if _is_complete(target, remote):  # another process downloaded it meanwhile
            return target
        part = folder / f"{remote.name}.part"
        by_hand = f"download it by hand and save it as {target}"
        _receive(remote, part, folder_setting=folder_setting, by_hand=by_hand)
        digest = _digest(part, remote.algorithm)
        if digest != remote.digest:
            part.unlink()  # resuming it could only fail again
            raise ValueError(
                f"{remote.url} is not the published file: its {remote.algorithm} is"
                f" {digest}, not {remote.digest}; the download was deleted. Run again,"
                f" or {by_hand}"
            )
        part.replace(target)
    return target


def verify(path: Path, *, algorithm: str, digest: str) -> None:
    """Check the digest of a file.

    Raises:
        ValueError: If the file has another digest.
    """
    actual = _digest(path, algorithm)
    if actual != digest:
        raise ValueError(
            f"{path} is not the published file: its {algorithm} is {actual}, not"
            f" {digest}; delete it and run again"
        )


def _is_complete(path: Path, remote: RemoteFile) -> bool:
    return path.is_file() and remote.size in (None, path.stat().st_size)


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _receive(
    remote: RemoteFile, part: Path, *, folder_setting: str, by_hand: str
) -> None:
    """Append the missing bytes to `part`; start over if the server cannot resume."""
    start = part.stat().st_size if part.exists() else 0
    if remote.size is not None:
        if start >= remote.size:
            return  # complete, or another file, which the digest shows
        _check_disk(remote, part, remote.size - start, folder_setting=folder_setting)
    request = urllib.request.Request(remote.url)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        status = getattr(error, "code", None)
        if status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # `part` has every byte: the process ended before it was renamed
        raise OSError(f"{remote.url}: {_reason(error)}; {by_hand}") from error
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = start if resumed else 0
        total = remote.size
        if total is None and response.length is not None:
            total = start + response.length
            missing = response.length
            _check_disk(remote, part, missing, folder_setting=folder_setting)
        try:
            size = _append(response, part, start=start, total=total)
        except (OSError, http.client.HTTPException) as error:
            raise OSError(
                f"{remote.url}: {_reason(error)}; run again to resume, or {by_hand}"
            ) from error
    # Without a known size, only the digest shows whether the file is complete.
    if total is not None and size < total:
        raise OSError(
            f"{remote.url}: the connection ended after {size:,} of {total:,} bytes; run"
            f" again to resume, or {by_hand}"
        )


def _append(
    response: http.client.HTTPResponse, part: Path, *, start: int, total: int | None
) -> int:
    """Write the response to `part` from byte `start`; return the size of `part`."""
    size = start
    bar = tqdm(
        total=total,
        initial=start,
        desc=f"downloading {part.stem}",
        unit="B",
        unit_scale=True,
        disable=None,  # no progress bar without a terminal
    )
    with part.open("ab" if start else "wb") as file, bar:
        # One byte too many changes the digest, so no more than that is stored.
        while (total is None or size <= total) and (data := response.read(_CHUNK)):
            data = data if total is None else data[: total + 1 - size]
            file.write(data)
            size += len(data)
            bar.update(len(data))
    return size


def _check_disk(
    remote: RemoteFile, part: Path, missing: int, *, folder_setting: str
) -> None:
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise OSError(
            f"{part.parent}: {remote.name} needs {missing:,} more bytes, but {free:,}"
            f" are free; free some space, or set {folder_setting} to another disk"
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error or type(error).__name__)
