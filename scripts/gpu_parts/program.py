"""The version of the program that measured a result."""

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("tempseg_jax", "configs", "scripts")


def version() -> dict[str, str]:
    """Return `program`, a digest of all Python files, and `commit` where git knows it.

    Only the digest is compared: a copy without git is the same program, and a commit
    does not tell what was changed since.
    """
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return {"program": digest.hexdigest()[:12]} | _commit()


def _commit() -> dict[str, str]:
    command = ["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}  # a copy without git
    return {"commit": git.stdout.strip()}
