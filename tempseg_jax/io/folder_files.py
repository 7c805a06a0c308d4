"""The files of a folder: one search for datasets and for prediction."""

import collections
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (path of a folder, names of its files) for a folder and its subfolders.

    Links to folders are followed, but not to one that is being walked, whose files
    would be found again and again. A link to nothing is a file.

    Raises:
        OSError: If a folder cannot be read.
    """
    yield from _walk(os.fspath(folder), ())


def _walk(folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    real = os.path.realpath(folder)
    if real in above:
        return
    subfolders, names = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            # Not entry.is_dir(), which raises for a link that leads to itself.
            (subfolders if os.path.isdir(entry.path) else names).append(entry.name)
    yield folder, names
    for name in subfolders:
        yield from _walk(os.path.join(folder, name), (*above, real))


def files_in(folder: Path) -> list[Path]:
    """Return all files of `walk`, sorted, without hidden ones.

    Hidden files and folders start with a dot: metadata of an operating system or of
    another program.

    Raises:
        OSError: If a folder cannot be read.
    """
    files = (Path(root, name) for root, names in walk(folder) for name in names)
    return sorted(
        path
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def kinds_of(paths: Iterable[Path]) -> str:
    """Return the extensions of files in words, with the number of files of each."""
    kinds = collections.Counter(
        (path.suffix or "no extension") if path.is_file() else "no regular file"
        for path in paths
    )
    return ", ".join(f"{kind} ({n})" for kind, n in kinds.most_common())
