"""Large files over HTTP: resumed, size and SHA-256 checked, whole or not at all.

TFDS's own download manager starts a 2 GB archive over after every interruption.
"""

import dataclasses
import hashlib
import http.client
import os
import shutil
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import filelock
from tqdm import tqdm

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_BROKEN_OFF = (
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)


@dataclasses.dataclass(frozen=True)
class Remote:
    """A file that never changes."""

    url: str
    size: int  # bytes
    sha256: str

    @property
    def name(self) -> str:
        """Return the file's name, as the URL ends."""
        return self.url.rsplit("/", 1)[-1]


def fetch(remote: Remote, *, folder: Path) -> Path:
    """Return the path of the downloaded file; a file of the right size is kept.

    It has its final name only once its checksum is right. An interrupted download is
    resumed from its `.part`; two processes may call this at once.

    Raises:
        OSError: the network fails, or the disk is too small.
        ValueError: the server has another file.
    """
    target = folder / remote.name
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / f"{remote.name}.lock"):
        if target.is_file() and target.stat().st_size == remote.size:
            return target
        part = folder / f"{remote.name}.part"
        _check_disk(remote, part)
        try:
            _receive(remote, part)
        except urllib.error.URLError as error:  # it did not begin
            raise OSError(
                f"{remote.url}: {_reason(error)}; {_by_hand(target)}"
            ) from error
        except _BROKEN_OFF as error:
            raise OSError(
                f"{remote.url}: {_reason(error)}; run again to resume, or"
                f" {_by_hand(target)}"
            ) from error
        _check(remote, part, target)
        os.replace(part, target)
    return target


def _check_disk(remote: Remote, part: Path) -> None:
    missing = remote.size - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise OSError(
            f"{part.parent}: {remote.name} needs {missing:,} bytes more, but {free:,}"
            " are free; make room, or set data.data_dir to another disk"
        )


def _receive(remote: Remote, part: Path) -> None:
    """Append to `part` what it lacks; start over if the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    if have >= remote.size:
        return  # whole, or wrong: the checksum tells
    request = urllib.request.Request(remote.url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        have = have if resumed else 0
        bar = tqdm(
            total=remote.size,
            initial=have,
            desc=f"downloading {remote.name}",
            unit="B",
            unit_scale=True,
            disable=None,
        )
        with part.open("ab" if resumed else "wb") as file, bar:
            # One byte too many shows that it is another file; no more is stored.
            while have <= remote.size and (data := response.read(_CHUNK)):
                file.write(data[: remote.size + 1 - have])
                have += len(data)
                bar.update(len(data))


def _check(remote: Remote, part: Path, target: Path) -> None:
    size = part.stat().st_size
    if size < remote.size:
        raise OSError(
            f"{remote.url}: ended after {size:,} of {remote.size:,} bytes; run again to"
            f" resume, or {_by_hand(target)}"
        )
    with part.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if size > remote.size or sha256 != remote.sha256:
        part.unlink()
        raise ValueError(
            f"{remote.url}: not the expected file (SHA-256 {sha256[:12]}… instead of"
            f" {remote.sha256[:12]}…); removed. Run again, or {_by_hand(target)}"
        )


def _by_hand(target: Path) -> str:
    return f"get it by hand and put it at {target}"


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error or type(error).__name__)
