"""Store the images of a prepared split as tiles, once."""

import collections
import functools
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import tensorstore as ts
from tqdm import tqdm

from tempseg_jax.data import problem_files, tiles
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.codec import BadFile
from tempseg_jax.data.decoder import decode
from tempseg_jax.io.prepare_once import prepare_once

_SAMPLE = 32  # images from which the size on disk is estimated
_SPARE_BYTES = 8 << 20
_REMEDY = (
    "free some space, set data.data_dir to another disk, or set data.tiles=False to"
    " decode whole images"
)


def prepare(split: Split, *, on_error: str) -> tiles.Tiles:
    """Return the tiles of a split, writing them beside the prepared dataset if needed.

    As the name of its folder has the fingerprint of the source files, tiles of changed
    files are prepared separately.

    Args:
        split: A split that `catalog.load_split` returned.
        on_error: 'raise' refuses images that cannot be decoded; with 'skip' they have
            no tiles.

    Raises:
        ProblemFiles: If images cannot be decoded and `on_error` is 'raise'.
        OSError: If the disk is too small or cannot be written, or if the stored files
            were changed.
    """
    folder = split.examples.folder
    home = folder.with_name(f"{folder.name}-tiles{tiles.VERSION}")
    final = home / split.examples.expression
    write = functools.partial(_prepare, split, final=final, on_error=on_error)
    prepare_once(final, write)
    stored = tiles.Tiles(final)
    _check(stored, split, on_error=on_error)
    return stored


def _check(stored: tiles.Tiles, split: Split, *, on_error: str) -> None:
    """Check the sizes of tiles, and that images without tiles may be skipped.

    Tiles that were prepared with 'skip' may lack images, and old ones have no digest.
    """
    sizes = stored.sizes()
    if not collections.Counter(x for x in sizes if any(x)) <= split.sizes:
        raise OSError(
            f"{stored.folder}: the sizes of the images are not those of the dataset;"
            " delete this folder, and the tiles are prepared again"
        )
    if on_error == "raise":
        lacking = [i for i, size in enumerate(sizes) if not any(size)]
        problems = [x for i in lacking if (x := _problem(i, split=split))]
        if problems:
            raise problem_files.ProblemFiles(problems, where=_where(split))


def _problem(index: int, *, split: Split) -> str | None:
    """Return why an image cannot be decoded; None if it can."""
    try:
        decode(split.examples[index], split=split)
    except BadFile as error:
        return str(error)
    return None


def _where(split: Split) -> str:
    return f"{split.dataset} {split.name}"


def _prepare(split: Split, folder: Path, *, final: Path, on_error: str) -> None:
    """Write the tiles to `folder`, which is renamed to `final` afterwards."""
    count = len(split.examples)
    try:
        arrays = tiles.create(
            folder,
            count=count,
            height=max(height for height, _ in split.sizes),
            width=max(width for _, width in split.sizes),
        )
        results = _store_all(split, arrays, folder, final=final)
    except ValueError as error:  # from TensorStore, with the file and the reason
        raise OSError(f"{final}: cannot be written ({error}); {_REMEDY}") from error
    problems = [x for x in results if isinstance(x, str)]
    if problems and on_error == "raise":
        raise problem_files.ProblemFiles(problems, where=_where(split))
    sizes = [(0, 0) if isinstance(x, str) else x for x in results]
    tiles.write_content(folder, sizes=sizes)


def _store_all(
    split: Split, arrays: dict[str, ts.TensorStore], folder: Path, *, final: Path
) -> list[tuple[int, int] | str]:
    """Store all images; return the size of each, or why it cannot be decoded.

    The first images are evenly spaced over the split, and show how much space all need.
    """
    count = len(split.examples)
    sample = sorted({i * count // _SAMPLE for i in range(_SAMPLE)})
    rest = sorted(set(range(count)) - set(sample))
    store = functools.partial(_store, split=split, arrays=arrays)
    with _cancelable_pool() as pool:
        results = dict(zip(sample, pool.map(store, sample), strict=True))
        _, written = tiles.stored_bytes(folder)
        expected = written * count // len(sample)
        print(
            f"preparing tiles of {split.dataset} {split.name} in {final}: {count:,}"
            f" images, about {expected / 1e9:.2f} GB",
            file=sys.stderr,
            flush=True,
        )
        _check_disk(expected - written, final)
        bar = tqdm(
            zip(rest, pool.map(store, rest), strict=True),
            desc=f"preparing tiles of {split.name}",
            initial=len(sample),
            total=count,
            unit=" images",
            disable=None,  # no progress bar without a terminal
        )
        results.update(bar)
    return [results[index] for index in range(count)]


def _store(
    index: int, *, split: Split, arrays: dict[str, ts.TensorStore]
) -> tuple[int, int] | str:
    try:
        example = decode(split.examples[index], split=split)
    except BadFile as error:
        return str(error)
    tiles.write(arrays, index, **example)
    return example["label"].shape


def _check_disk(needed: int, final: Path) -> None:
    needed = _SPARE_BYTES + needed * 11 // 10  # 10 % for a sample that differs
    free = shutil.disk_usage(final.parent).free
    if needed > free:
        raise OSError(
            f"{final}: needs about {needed:,} more bytes, but {free:,} are free;"
            f" {_REMEDY}"
        )


@contextmanager
def _cancelable_pool() -> Iterator[ThreadPoolExecutor]:
    """Use all cores; an exception, such as Ctrl-C, cancels what has not started."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
