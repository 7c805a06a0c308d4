"""The files of a folder: one search for datasets and for prediction."""

import collections
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def walk(
    folder: str | os.PathLike[str], *, hidden: bool
) -> Iterator[tuple[str, list[str]]]:
    """Yield (path of a folder, names of its files) for a folder and its subfolders.

    Links to folders are followed, except to a folder that contains the link, which
    would never end. A broken link is listed as a file.

    Args:
        folder: The folder, which exists.
        hidden: Whether to list files and folders whose names start with a dot, too.

    Raises:
        OSError: If a folder cannot be read.
    """
    yield from _walk(os.fspath(folder), hidden, ())


def _walk(
    folder: str, hidden: bool, above: tuple[str, ...]
) -> Iterator[tuple[str, list[str]]]:
    real = os.path.realpath(folder)
    if real in above:
        return
    subfolders, names = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if hidden or not entry.name.startswith("."):
                (subfolders if _is_folder(entry) else names).append(entry.name)
    yield folder, names
    for name in subfolders:
        yield from _walk(os.path.join(folder, name), hidden, (*above, real))


def _is_folder(entry: os.DirEntry) -> bool:
    if entry.is_symlink():  # entry.is_dir() raises for a link that leads to itself
        return os.path.isdir(entry.path)
    return entry.is_dir()


def files_in(folder: Path) -> list[Path]:
    """Return all files of a folder and its subfolders, sorted, without hidden ones.

    Hidden ones are metadata of an operating system or of another program.

    Raises:
        OSError: If a folder cannot be read.
    """
    found = walk(folder, hidden=False)
    return sorted(Path(root, name) for root, names in found for name in names)


def kinds_of(paths: Iterable[Path]) -> str:
    """Return the extensions of files in words, with the number of files of each."""
    kinds = collections.Counter(
        (path.suffix or "no extension") if path.is_file() else "no regular file"
        for path in paths
    )
    return ", ".join(f"{kind} ({n})" for kind, n in kinds.most_common())
