"""Predict files, one after the other: read ahead, write behind, name what is broken."""

import collections
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import UInt8
from numpy import ndarray
from tqdm import tqdm

from tempseg_jax.inference import image_files, overlays
from tempseg_jax.inference.predictor import Predictor

_AHEAD = 4  # images read before they are needed, and written after they are done
_THREADS = 4


class Outcome(NamedTuple):
    """What became of a list of images."""

    done: int
    broken: list[str]  # a message each
    seconds: float
    seconds_after_first: float  # the first one waits for compilation

    def __str__(self) -> str:
        """Return one line: images, seconds, images a second."""
        rate = f"{self.done / max(self.seconds, 1e-9):.2f} images/s"
        if self.done > 1:
            later = (self.done - 1) / max(self.seconds_after_first, 1e-9)
            rate += f", {later:.2f} after the first"
        return f"{self.done} images in {self.seconds:.1f} s: {rate}"


def predict_files(
    segment: Predictor, files: list[tuple[Path, Path]], *, out: Path
) -> Outcome:
    """Write `out/labels/*.png` (indices, in colors) and `out/overlays/*.jpg`.

    Args:
        segment: of `inference.load`.
        files: (file, its name below `out`), of `image_files.find`.
        out: a folder, made if it is not there.

    Raises:
        ValueError: two files would have one name.
        OSError: something cannot be written.
    """
    names = _names([name for _, name in files])

    def write(
        image: UInt8[ndarray, "h w 3"], labels: UInt8[ndarray, "h w"], name: str
    ) -> None:
        found = overlays.indexed(labels, segment.palette)
        overlays.save(found, out / "labels" / f"{name}.png")
        shown = overlays.with_legend(
            image, labels, palette=segment.palette, class_names=segment.class_names
        )
        overlays.save(shown, out / "overlays" / f"{name}.jpg")

    return for_each(segment, [file for file, _ in files], names, write=write)


def for_each(
    segment: Predictor,
    files: list[Path],
    names: list[str],
    *,
    write: Callable[[UInt8[ndarray, "h w 3"], UInt8[ndarray, "h w"], str], None],
) -> Outcome:
    """Predictor every file; `write(image, labels, name)` runs behind, in threads."""
    done, broken = 0, []
    start = first = time.perf_counter()
    writing: collections.deque[Future] = collections.deque()
    progress = tqdm(total=len(files), unit="image", disable=not sys.stderr.isatty())
    with ThreadPoolExecutor(_THREADS) as pool, progress:
        images = _ahead(pool, image_files.read, files)
        for future, name in zip(images, names, strict=True):
            progress.update()
            try:
                image = future.result()
            except image_files.BadImage as error:
                broken.append(str(error))
                progress.write(f"left out: {error}", file=sys.stderr)
                continue
            writing.append(pool.submit(write, image, segment(image), name))
            if len(writing) > _AHEAD:
                writing.popleft().result()
            done += 1
            if done == 1:
                first = time.perf_counter()
        while writing:
            writing.popleft().result()
    end = time.perf_counter()
    return Outcome(done, broken, end - start, end - first)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable, items: Iterable[Any]
) -> Iterator[Future]:
    """Yield a future for each item, a few of them already running."""
    running: collections.deque[Future] = collections.deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) > _AHEAD:
            yield running.popleft()
    while running:
        yield running.popleft()


def _names(names: list[Path]) -> list[str]:
    """Drop the endings, except where `a.jpg` and `a.png` would have one name."""
    stems = [str(name.with_suffix("")) for name in names]
    count = collections.Counter(stems)
    unique = [
        stem if count[stem] == 1 else str(name)
        for stem, name in zip(stems, names, strict=True)
    ]
    repeated = [name for name, n in collections.Counter(unique).items() if n > 1]
    if repeated:
        raise ValueError(
            f"{repeated[0]}: two of the images have this name and would overwrite "
            "each other's result; predict their folders with an --out each"
        )
    return unique
