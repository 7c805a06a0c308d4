"""Any picture a user has to upright 8-bit RGB, or a clear refusal."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Files that `find` takes for images."""

_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")


class BadImage(ValueError):
    """An image that cannot be used; the message names it, and says why."""


def read(
    image: str | Path | Image.Image | UInt8[np.ndarray, "h w 3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the picture as upright 8-bit RGB.

    EXIF's orientation is honoured. Gray and palette images become RGB; transparency is
    laid on white; 16-bit gray keeps its high byte.

    Args:
        image: a file's path, a PIL image, or an array that already is uint8 RGB.

    Raises:
        BadImage: it is missing, broken, enormous, or of a kind with no one meaning as
            RGB: float or 32-bit values, CMYK, Lab, other arrays.
    """
    if isinstance(image, np.ndarray):
        return _checked_array(image)
    if isinstance(image, Image.Image):
        return _rgb(image, name="the image")
    with warnings.catch_warnings():
        # Pillow warns from 89 megapixels on; at twice that it refuses.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(image) as opened:
                return _rgb(opened, name=str(image))
        except BadImage:
            raise
        except FileNotFoundError:
            raise BadImage(f"{image}: no such file") from None
        except IsADirectoryError:
            raise BadImage(f"{image}: a folder, not an image") from None
        except UnidentifiedImageError:
            raise BadImage(f"{image}: not an image of a known format") from None
        except Image.DecompressionBombError as error:
            raise BadImage(f"{image}: implausibly large ({error})") from error
        # What Pillow's decoders raise for broken files differs by format.
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise BadImage(f"{image}: cannot be decoded ({error})") from error


def find(paths: list[str | Path]) -> list[tuple[Path, Path]]:
    """Return (file, its path relative to what was asked for), folders in order.

    Raises:
        FileNotFoundError: a path that is not there, or a folder without images.
    """
    found = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise FileNotFoundError(f"{path}: no such file or folder")
            found.append((path, Path(path.name)))
            continue
        inside = sorted(
            file
            for file in path.rglob("*")
            # Hidden files are half-written, or another system's notes.
            if file.suffix.lower() in ENDINGS and not file.name.startswith(".")
        )
        if not inside:
            raise FileNotFoundError(f"{path}: holds no image ({', '.join(ENDINGS)})")
        found += [(file, file.relative_to(path)) for file in inside]
    return found


def shrunk(
    image: UInt8[np.ndarray, "h w 3"], *, largest_side: int
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the image, made smaller where a side is longer than `largest_side`."""
    if max(image.shape) <= largest_side:
        return image
    smaller = Image.fromarray(image)
    smaller.thumbnail((largest_side, largest_side), Image.Resampling.LANCZOS)
    return np.array(smaller)


def _checked_array(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise BadImage(
            f"an array of {image.dtype} and shape {image.shape}; give uint8 RGB of "
            "shape (height, width, 3)"
        )
    if not image.size:
        raise BadImage(f"an array of shape {image.shape} has no pixels")
    return image


def _rgb(image: Image.Image, *, name: str) -> UInt8[np.ndarray, "h w 3"]:
    image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BIT:
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"):
        raise BadImage(
            f"{name}: pixels of type {image.mode!r} (such as 32-bit, float or CMYK) "
            "have no one meaning as RGB; convert the file to 8-bit RGB first"
        )
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))
