"""Images given as files, Pillow images or arrays, as upright 8-bit RGB."""

import collections
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tempseg_jax.data import image_reader
from tempseg_jax.data.image_reader import ENDINGS, BadFile


def read(
    image: str | Path | Image.Image | UInt8[np.ndarray, "h w 3"],
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


def find(paths: list[str | Path]) -> tuple[list[tuple[Path, Path]], str]:
    """Return the image files of files and folders, searched recursively.

    Returns:
        For each image (file, name): for a file its own name, for a file of a folder its
        path relative to that folder. The files of a folder are sorted. Then, in words,
        what was left out of the folders: how many files, and their extensions; "" if
        nothing was. Hidden files are incomplete, or metadata of another operating
        system, and are not counted.

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
        found = sorted(x for x in path.rglob("*") if not x.name.startswith("."))
        found = [x for x in found if not x.is_dir()]
        images = [x for x in found if x.suffix.lower() in ENDINGS and x.is_file()]
        left_out += sorted(set(found) - set(images))
        if not images:
            raise FileNotFoundError(
                f"{path}: the folder has no image files ({', '.join(ENDINGS)})"
            )
        files += [(file, file.relative_to(path)) for file in images]
    return files, _counted(left_out)


def _counted(left_out: list[Path]) -> str:
    """Return how many files were left out, by extension; "" if there are none."""
    if not left_out:
        return ""
    kinds = collections.Counter(
        (path.suffix or "no extension") if path.is_file() else "no regular file"
        for path in left_out
    )
    counts = ", ".join(f"{kind} ({n})" for kind, n in kinds.most_common())
    return f"left out {len(left_out)} of the files in folders: {counts}"


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
