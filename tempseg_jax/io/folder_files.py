"""The files of a folder: one search for datasets and for prediction."""

import collections
import os
from collections.abc import Iterable
from pathlib import Path


def files_in(folder: Path) -> list[Path]:
    """Return all files in a folder and its subfolders, sorted, without hidden ones.

    Hidden files and folders start with a dot: metadata of an operating system or of
    another program. Links to folders are followed, unless they lead to a folder that
    contains them.
    """
    found = []
    for root, subfolders, names in os.walk(folder, followlinks=True):
        here = Path(root)
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and not _is_loop(here / name)
        ]
        found += [here / name for name in names if not name.startswith(".")]
    return sorted(found)


def kinds_of(paths: Iterable[Path]) -> str:
    """Return the extensions of files in words, with the number of files of each."""
    kinds = collections.Counter(
        (path.suffix or "no extension") if path.is_file() else "no regular file"
        for path in paths
    )
    return ", ".join(f"{kind} ({n})" for kind, n in kinds.most_common())


def _is_loop(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(
        folder.resolve()
    )
