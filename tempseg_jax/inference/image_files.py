"""Images given as files, Pillow images or arrays, as upright 8-bit RGB."""

import collections
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tempseg_jax.data import image_reader
from tempseg_jax.data.image_reader import ENDINGS, BadFile
from tempseg_jax.io.folder_files import files_in, kinds_of

_THREADS = 4

Input = str | Path | Image.Image | UInt8[np.ndarray, "_ _ 3"]
"""A file, a Pillow image or an array."""


def read(
    image: Input,
) -> UInt8[np.ndarray, "h w 3"]:
    """Return an image as upright 8-bit RGB, by the rules of `image_reader`.

    Args:
        image: Path of a file, a PIL image, or an array that is uint8 RGB already.

    Raises:
        BadFile: If the file is missing, broken or larger than Pillow's limit, or if
            its pixel type has no unique meaning as RGB: float or 32-bit values, CMYK,
            Lab, and arrays that are not uint8 RGB.
    """
    if isinstance(image, np.ndarray):
        return _checked_array(image)
    if isinstance(image, Image.Image):
        return image_reader.to_rgb(image, name="the image")
    return image_reader.decode(image_reader.read_bytes(image), name=str(image))


def read_ahead(images: Iterable[Input], *, ahead: int) -> Iterator[Future]:
    """Yield a future of `read` for each image; up to `ahead` more are being read."""
    reading: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for image in images:
            reading.append(pool.submit(read, image))
            if len(reading) > ahead:
                yield reading.popleft()
        while reading:
            yield reading.popleft()


def find(
    paths: Sequence[str | Path], *, out: Path | None = None
) -> tuple[list[tuple[Path, Path]], str]:
    """Return the image files of files and folders, searched recursively.

    Args:
        paths: Files and folders.
        out: The folder that results are written to. If it is within one of the folders,
            it is not searched, because its images are results of before.

    Returns:
        For each image (file, name): for a file its own name, for a file of a folder its
        path relative to that folder. The files of a folder are sorted. Then, in words,
        what was left out of the folders: how many files, and their extensions; "" if
        nothing was. Hidden files are not counted.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder has no images.
    """
    files, left_out = [], []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise FileNotFoundError(f"{path}: there is no such file or folder")
            files.append((path, Path(path.name)))
            continue
        found = files_in(path)
        if out is not None and _is_within(out, path):
            found = [x for x in found if not _is_within(x, out)]
        images = [x for x in found if x.suffix.lower() in ENDINGS and x.is_file()]
        left_out += sorted(set(found) - set(images))
        if not images:
            raise FileNotFoundError(
                f"{path}: the folder has no image files ({', '.join(ENDINGS)})"
            )
        files += [(file, file.relative_to(path)) for file in images]
    if not left_out:
        return files, ""
    number = len(left_out)
    return files, f"left out {number} of the files in folders: {kinds_of(left_out)}"


def _is_within(path: Path, folder: Path) -> bool:
    real, above = (Path(os.path.realpath(x)) for x in (path, folder))
    return real != above and real.is_relative_to(above)


def shrunk(
    image: UInt8[np.ndarray, "h w 3"], *, largest_side: int
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the image, downsized if a side is longer than `largest_side` pixels."""
    if max(image.shape) <= largest_side:
        return image
    smaller = Image.fromarray(image)
    smaller.thumbnail((largest_side, largest_side), Image.Resampling.LANCZOS)
    return np.array(smaller)


def _checked_array(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise BadFile(
            f"the image is an array of {image.dtype} and shape {image.shape}; it must "
            "be uint8 RGB of shape (height, width, 3)"
        )
    if not image.size:
        raise BadFile(f"the image is an array of shape {image.shape}: no pixels")
    return image
