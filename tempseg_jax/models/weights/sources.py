"""Where published weight files come from, and proof that they arrived whole."""

import hashlib
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import filelock
import huggingface_hub
from tqdm import tqdm

CHUNK = 1 << 20  # bytes


class HubFile(NamedTuple):
    """A file on the Hugging Face Hub, kept in the Hub's own cache."""

    repo: str

    def fetch(self) -> Path:
        """Return the file, from the cache if it is there, else from the network.

        The Hub's client resumes by itself, and names a file by its published SHA-256.

        Raises:
            ValueError: it cannot be had, or it is not the published file.
        """
        name = "model.safetensors"
        path = huggingface_hub.try_to_load_from_cache(self.repo, name)
        if not isinstance(path, str):
            try:
                path = huggingface_hub.hf_hub_download(self.repo, name)
            except Exception as error:  # whichever of its layers failed, one remedy
                url = huggingface_hub.hf_hub_url(self.repo, name)
                place = "anywhere and set model.pretrained to its path"
                raise ValueError(_offline(url, place, error)) from error
        blob = Path(path).resolve()
        if re.fullmatch("[0-9a-f]{64}", blob.name):
            _verify(blob, "sha256", blob.name)
        return Path(path)


class KerasFile(NamedTuple):
    """A file of keras.applications, kept where Keras itself would keep it."""

    url: str
    md5: str  # published in Keras' source

    def fetch(self) -> Path:
        """Return the file, from the cache if it is there, else from the network.

        An interrupted download is resumed; a file is given its name only when whole.
        Of several processes that call this at once, one downloads.

        Raises:
            ValueError: it cannot be had, or it is not the published file.
        """
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        path = home / "models" / self.url.rsplit("/", 1)[1]
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with filelock.FileLock(f"{path}.lock"):
                    if not path.exists():  # another process had the lock before
                        self._receive(path)
            except (OSError, HTTPException) as error:
                place = f"in {path.parent} under that name"
                raise ValueError(_offline(self.url, place, error)) from error
        _verify(path, "md5", self.md5)
        return path

    def _receive(self, path: Path) -> None:
        part = path.with_name(path.name + ".part")
        _download(self.url, part)
        try:
            _verify(part, "md5", self.md5)
        except ValueError:
            part.unlink()  # resuming it could only fail again
            raise
        part.replace(path)


class LocalFile(NamedTuple):
    """A file of the user's own."""

    path: Path

    def fetch(self) -> Path:
        """Return the path; reading it raises what is wrong with it."""
        return self.path


def _offline(url: str, place: str, error: Exception) -> str:
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    return (
        f"cannot download {url} ({reason}). With a network, start again and it "
        f"resumes; without one, fetch that file elsewhere and put it {place}"
    )


def _download(url: str, part: Path) -> None:
    """Append to `part` what it lacks of the file at `url`."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if (
            error.code == 416
        ):  # nothing beyond what is here: killed just before renaming
            return
        raise
    with response, open(part, "ab" if response.status == 206 else "wb") as file:
        length = response.headers["Content-Length"]
        # Not every answer says: then the connection's end is the file's, and the
        # checksum tells.
        total = None if length is None else file.tell() + int(length)
        bar = {"desc": part.stem, "unit": "B", "unit_scale": True, "disable": None}
        with tqdm(initial=file.tell(), total=total, **bar) as progress:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
        have = file.tell()
    if total is not None and have < total:
        raise OSError(f"the connection ended {total - have} bytes early")


def _verify(path: Path, algorithm: str, expected: str) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is not the published file: its {algorithm} is {found}, not "
            f"{expected}; delete it and start again"
        )
