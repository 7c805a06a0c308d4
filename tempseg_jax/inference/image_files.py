"""Read image files of many formats as upright 8-bit RGB."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""File name extensions that `find` accepts as images."""

_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")


class BadImage(ValueError):
    """An image that cannot be used; the message names it and gives the reason."""


def read(
    image: str | Path | Image.Image | UInt8[np.ndarray, "h w 3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Return an image as upright 8-bit RGB.

    The EXIF orientation is applied. Gray and palette images are converted to RGB,
    transparent images are composited on white, and 16-bit gray keeps its high byte.

    Args:
        image: Path of a file, a PIL image, or an array that is uint8 RGB already.

    Raises:
        BadImage: If the file is missing, broken or larger than Pillow's limit, or if
            its pixel type has no unique meaning as RGB: float or 32-bit values, CMYK,
            Lab, and arrays that are not uint8 RGB.
    """
    if isinstance(image, np.ndarray):
        return _checked_array(image)
    if isinstance(image, Image.Image):
        return _rgb(image, name="the image")
    with warnings.catch_warnings():
        # Pillow warns above 89 megapixels and raises above twice that.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(image) as opened:
                return _rgb(opened, name=str(image))
        except BadImage:
            raise
        except FileNotFoundError:
            raise BadImage(f"{image}: there is no such file") from None
        except IsADirectoryError:
            raise BadImage(f"{image}: is a folder, not an image file") from None
        except UnidentifiedImageError:
            raise BadImage(f"{image}: is not an image in a known format") from None
        except Image.DecompressionBombError as error:
            raise BadImage(f"{image}: has too many pixels ({error})") from error
        # Pillow's decoders raise different errors for broken files of each format.
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise BadImage(f"{image}: cannot be decoded ({error})") from error


def find(paths: list[str | Path]) -> list[tuple[Path, Path]]:
    """Return the image files of files and folders, searched recursively.

    Returns:
        For each image (file, name): for a file its own name, for a file of a folder its
        path relative to that folder. The files of a folder are sorted.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder has no images.
    """
    files = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise FileNotFoundError(f"{path}: there is no such file or folder")
            files.append((path, Path(path.name)))
            continue
        images = sorted(
            file
            for file in path.rglob("*")
            # Hidden files are incomplete, or metadata of another operating system.
            if file.suffix.lower() in ENDINGS and not file.name.startswith(".")
        )
        if not images:
            raise FileNotFoundError(
                f"{path}: the folder has no image files ({', '.join(ENDINGS)})"
            )
        files += [(file, file.relative_to(path)) for file in images]
    return files


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
        raise BadImage(
            f"the image is an array of {image.dtype} and shape {image.shape}; it must "
            "be uint8 RGB of shape (height, width, 3)"
        )
    if not image.size:
        raise BadImage(f"the image is an array of shape {image.shape}: no pixels")
    return image


def _rgb(image: Image.Image, *, name: str) -> UInt8[np.ndarray, "h w 3"]:
    image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BIT:
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"):
        raise BadImage(
            f"{name}: pixels of type {image.mode!r} have no unique meaning as RGB; "
            "convert the image to 8-bit RGB first"
        )
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))
