"""A digest of metrics.jsonl, which tells at a resume whether a line has changed."""

import hashlib
import json
from pathlib import Path

from tempseg_jax.io import atomic

NAME = "metrics.digest.json"
"""File of a workdir: how many bytes of metrics.jsonl are covered, and their SHA-256."""


class LogDigest:
    """The digest of a log that grows line by line."""

    def __init__(self, workdir: Path, text: str):
        """Start with the lines of a log that was just written anew."""
        self._path = workdir / NAME
        self._bytes, self._sha256 = 0, hashlib.sha256()
        self.add(text)

    def add(self, text: str) -> None:
        """Cover further lines, which were appended to the log."""
        data = text.encode()
        self._bytes += len(data)
        self._sha256.update(data)

    def write(self) -> None:
        """Write the digest of the lines so far.

        Raises:
            OSError: If it cannot be written.
        """
        covered = {"bytes": self._bytes, "sha256": self._sha256.hexdigest()}
        with atomic.replacing(self._path) as partial:
            partial.write_text(json.dumps(covered) + "\n")


def log_has_changed(workdir: Path) -> bool:
    """Return whether the covered lines of a log are not those that were written.

    Without a digest (of an older version, or deleted) nothing is known: False. A digest
    that is damaged itself counts as a change.
    """
    try:
        covered = json.loads((workdir / NAME).read_text())
        data = (workdir / "metrics.jsonl").read_bytes()[: covered["bytes"]]
        return hashlib.sha256(data).hexdigest() != covered["sha256"]
    except FileNotFoundError:
        return (workdir / NAME).exists()  # then the log itself is missing
    except (ValueError, TypeError, LookupError):
        return True


def forget(workdir: Path) -> None:
    """Delete the digest, before the log is written anew."""
    (workdir / NAME).unlink(missing_ok=True)
