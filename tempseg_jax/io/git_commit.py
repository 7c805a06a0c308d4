"""The commit of this program's code."""

import subprocess
from pathlib import Path

CODE = ("tempseg_jax", "configs")
"""The folders whose changes a commit is reported with."""


def git_commit() -> str:
    """Return the commit, with "and changes" if code was changed after it.

    It is empty if git does not track this file: another repository may be around an
    installed package.
    """
    this = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", this.parents[2], *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(this))
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
        return git("rev-parse", "--short=12", "HEAD") + (" and changes" * bool(changed))
    except (OSError, subprocess.CalledProcessError):
        return ""
