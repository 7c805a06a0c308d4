"""Download published weight files and verify their digests."""

import os
import re
from pathlib import Path
from typing import NamedTuple

import huggingface_hub

from tempseg_jax.io import download


class HubFile(NamedTuple):
    """The model.safetensors of a Hugging Face Hub repository, in the Hub's cache."""

    repo: str

    def fetch(self) -> Path:
        """Return the path of the file, downloading it if it is not in the cache.

        The Hub's client resumes interrupted downloads, and names a file in its cache
        by the published SHA-256.

        Raises:
            ValueError: If the download fails, or the file does not have that SHA-256.
        """
        name = "model.safetensors"
        path = huggingface_hub.try_to_load_from_cache(self.repo, name)
        if not isinstance(path, str):
            try:
                path = huggingface_hub.hf_hub_download(self.repo, name)
            except Exception as error:  # each of the client's layers raises its own
                url = huggingface_hub.hf_hub_url(self.repo, name)
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                raise ValueError(
                    f"{url}: {reason}; run again to resume, or download it by hand and"
                    " set model.pretrained to its path"
                ) from error
        blob = Path(path).resolve()
        if re.fullmatch("[0-9a-f]{64}", blob.name):
            download.verify(blob, algorithm="sha256", digest=blob.name)
        return Path(path)


class KerasFile(NamedTuple):
    """A weight file of keras.applications, in the folder where Keras keeps it."""

    url: str
    md5: str  # published in the source code of Keras

    def fetch(self) -> Path:
        """Return the path of the file, downloading it if it is not in the cache.

        Raises:
            ValueError: If the download fails, or the file does not have this MD5.
        """
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        remote = download.RemoteFile(self.url, algorithm="md5", digest=self.md5)
        try:
            path = download.fetch(
                remote, folder=home / "models", folder_setting="KERAS_HOME"
            )
        except OSError as error:
            raise ValueError(str(error)) from error
        download.verify(path, algorithm="md5", digest=self.md5)
        return path


class LocalFile(NamedTuple):
    """A file of the user."""

    path: Path

    def fetch(self) -> Path:
        """Return the path; errors are raised when the file is read."""
        return self.path
