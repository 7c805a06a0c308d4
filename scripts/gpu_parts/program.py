"""The version of the program that measured a result."""

import hashlib
from pathlib import Path

from tempseg_jax.io.git_commit import git_commit

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
    commit = git_commit()
    return {"program": digest.hexdigest()[:12]} | ({"commit": commit} if commit else {})
