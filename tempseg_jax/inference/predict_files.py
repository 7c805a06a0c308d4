"""Predict many image files, with reading and writing in background threads."""

import collections
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from jaxtyping import UInt8
from numpy import ndarray
from tqdm import tqdm

from tempseg_jax.data.image_reader import BadFile
from tempseg_jax.inference import image_files, overlays
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.workdir.metrics_writer import rate_text

_AHEAD = 4  # images that are read early, and as many that wait to be written
_THREADS = 4


class Outcome(NamedTuple):
    """The result of predicting a list of images."""

    done: int  # number of images
    broken: list[str]  # an error message for each image that could not be read
    seconds: float
    seconds_after_first: float  # the first image includes compilation

    def __str__(self) -> str:
        """Return one line: number of images, seconds, images per second."""
        rate = f"{rate_text(self.done / max(self.seconds, 1e-9))} images/s"
        if self.done > 1:
            later = (self.done - 1) / max(self.seconds_after_first, 1e-9)
            rate += f", {rate_text(later)} after the first"
        images = "1 image" if self.done == 1 else f"{self.done} images"
        return f"{images} in {self.seconds:.1f} s: {rate}"


def predict_files(
    predictor: Predictor, files: list[tuple[Path, Path]], *, out: Path
) -> Outcome:
    """Write `out/labels/*.png` (indexed by class) and `out/overlays/*.jpg`.

    Args:
        predictor: The trained segmenter.
        files: (file, its name below `out`) for each image, as `image_files.find`
            returns them.
        out: Output folder; created if it does not exist.

    Raises:
        ValueError: If the results of two files would have the same name.
        OSError: If a result cannot be written.
    """
    names = _result_names([name for _, name in files])

    def write(
        image: UInt8[ndarray, "h w 3"], labels: UInt8[ndarray, "h w"], name: str
    ) -> None:
        indexed = overlays.indexed(labels, predictor.palette)
        overlays.save(indexed, out / "labels" / f"{name}.png")
        overlay = overlays.with_legend(
            image, labels, palette=predictor.palette, class_names=predictor.class_names
        )
        overlays.save(overlay, out / "overlays" / f"{name}.jpg")

    return for_each(predictor, [file for file, _ in files], names, write=write)


def for_each(
    predictor: Predictor,
    files: list[Path],
    names: list[str],
    *,
    write: Callable[[UInt8[ndarray, "h w 3"], UInt8[ndarray, "h w"], str], None],
) -> Outcome:
    """Predict every file, and call `write(image, labels, name)` in threads.

    Images that cannot be read are reported on stderr, skipped, and listed in the
    result.
    """
    done, broken = 0, []
    start = first = time.perf_counter()
    writing: collections.deque[Future] = collections.deque()
    progress = tqdm(total=len(files), unit="image", disable=not sys.stderr.isatty())
    with ThreadPoolExecutor(_THREADS) as pool, progress:
        images = image_files.read_ahead(files, ahead=_AHEAD)
        for future, name in zip(images, names, strict=True):
            progress.update()
            try:
                image = future.result()
            except BadFile as error:
                broken.append(str(error))
                progress.write(f"skipped: {error}", file=sys.stderr)
                continue
            writing.append(pool.submit(write, image, predictor(image), name))
            if len(writing) > _AHEAD:
                writing.popleft().result()
            done += 1
            if done == 1:
                first = time.perf_counter()
        while writing:
            writing.popleft().result()
    end = time.perf_counter()
    return Outcome(done, broken, end - start, end - first)


def _result_names(names: list[Path]) -> list[str]:
    """Drop the suffixes, except where `a.jpg` and `a.png` would get the same name."""
    stems = [str(name.with_suffix("")) for name in names]
    count = collections.Counter(stems)
    unique = [
        stem if count[stem] == 1 else str(name)
        for stem, name in zip(stems, names, strict=True)
    ]
    repeated = [name for name, n in collections.Counter(unique).items() if n > 1]
    if repeated:
        raise ValueError(
            f"{repeated[0]}: two images have this name and would overwrite each "
            "other's result; predict each folder separately, with its own --out"
        )
    return unique
