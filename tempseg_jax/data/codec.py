"""Encode and decode images and labels, and check the files of a dataset."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from tempseg_jax.types import IGNORE_LABEL

# The threads of the input pipeline already use every core.
cv2.setNumThreads(0)

_ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_PNG = b"\x89PNG\r\n\x1a\n"
_IDAT = len(_PNG) + 25  # start of the chunk that follows the 25 bytes of IHDR
_TRAILER = 1 << 16  # bytes; cameras and editors append data after the end marker
_EXIF_ORIENTATION = 0x0112


class BadFile(ValueError):
    """A file that cannot be used; the message has its name and the reason."""


def image_size(data: bytes, *, name: str) -> tuple[int, int]:
    """Return (height, width) in pixels after EXIF rotation; only the header is decoded.

    Raises:
        BadFile: If `data` is empty, neither JPEG nor PNG, truncated, or too large.
    """
    with _open(data, name=name) as image:
        width, height = image.size
        if image.getexif().get(_EXIF_ORIENTATION, 1) >= 5:  # rotated by 90 degrees
            height, width = width, height
    return height, width


def read_mask(data: bytes, *, name: str) -> UInt8[np.ndarray, "h w *c"]:
    """Return a mask's class indices (gray or palette) or its colors (RGB).

    Raises:
        BadFile: If `image_size` raises it, or the mask has an alpha channel or 16 bits
            per channel.
    """
    with _open(data, name=name) as image:
        if image.mode not in ("L", "P", "1", "RGB"):
            raise BadFile(
                f"{name}: the mask has PIL mode {image.mode!r}; convert it to 8-bit"
                " gray, palette or RGB, without an alpha channel"
            )
        try:
            mask = np.array(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise BadFile(f"{name}: cannot be decoded ({error})") from error
    return mask.astype(np.uint8)


def check_label(
    label: UInt8[np.ndarray, "..."],
    *,
    size: tuple[int, int],
    num_classes: int,
    name: str,
) -> None:
    """Check the size of a label and its values.

    Args:
        label: Class indices.
        size: (height, width) of its image in pixels.
        num_classes: Number of classes; IGNORE_LABEL (void) is not one of them.
        name: Name of the file, for the error message.

    Raises:
        BadFile: If the size differs, or a value is neither a class nor void.
    """
    if label.shape != size:
        actual = "x".join(map(str, label.shape[1::-1] + label.shape[2:]))
        raise BadFile(
            f"{name}: the mask has {actual} pixels, but its image has"
            f" {size[1]}x{size[0]}"
        )
    bad = np.unique(label[(label >= num_classes) & (label != IGNORE_LABEL)])
    if bad.size:
        raise BadFile(
            f"{name}: the value {bad[0]} is neither a class (0 to {num_classes - 1})"
            f" nor void ({IGNORE_LABEL})"
        )


def encode_label(label: UInt8[np.ndarray, "h w"]) -> bytes:
    """Return a gray PNG with unfiltered rows, which zlib alone can decode."""
    height, width = label.shape
    rows = np.pad(label, ((0, 0), (1, 0)))  # 0 before each row: no filter
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), level=3)  # decompresses fastest
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return _PNG + b"".join(_chunk(*chunk) for chunk in chunks)


def encode_image(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Return a PNG of an RGB image."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def decode_image(data: bytes, *, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Return the RGB image, rotated as its EXIF tag says.

    Raises:
        BadFile: If `data` cannot be decoded, or is truncated; OpenCV would fill the
            missing part of a truncated image with gray.
    """
    if not any(_has_ending(data, ending) for ending in _ENDINGS.values()):
        raise BadFile(f"{name}: {_empty_or_truncated(data)}")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise BadFile(f"{name}: cannot be decoded ({error.err})") from error
    if image is None:
        raise BadFile(f"{name}: cannot be decoded")
    return image


def decode_label(data: bytes, *, name: str) -> UInt8[np.ndarray, "h w"]:
    """Return the class indices of a PNG written by `encode_label`.

    This is 2.6 times as fast as a PNG decoder, which processes row by row.

    Raises:
        BadFile: If `data` is damaged, or a PNG that `encode_label` did not write.
    """
    try:
        height, width = label_size(data)
        (length,) = struct.unpack_from(">I", data, _IDAT)
        rows = zlib.decompress(memoryview(data)[_IDAT + 8 : _IDAT + 8 + length])
        return np.frombuffer(rows, np.uint8).reshape(height, width + 1)[:, 1:]
    except (struct.error, zlib.error, ValueError) as error:
        raise BadFile(f"{name}: cannot be decoded ({error})") from error


def label_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) in pixels of a PNG written by `encode_label`."""
    width, height = struct.unpack_from(">2I", data, len(_PNG) + 8)
    return height, width


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _open(data: bytes, *, name: str) -> Image.Image:
    """Check the header and the end of an image file; return the image, not decoded."""
    if not data:
        raise BadFile(f"{name}: {_empty_or_truncated(data)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=tuple(_ENDINGS))
    except UnidentifiedImageError as error:
        raise BadFile(f"{name}: neither a JPEG nor a PNG image") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadFile(f"{name}: the image is too large ({error})") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadFile(f"{name}: the header is damaged ({error})") from error
    # PIL calls a JPEG of several pictures, as some phones write it, MPO.
    if not _has_ending(data, _ENDINGS.get(image.format, _ENDINGS["JPEG"])):
        raise BadFile(f"{name}: {_empty_or_truncated(data)}")
    return image


def _has_ending(data: bytes, ending: bytes) -> bool:
    return data.endswith(ending) or ending in data[-_TRAILER:]


def _empty_or_truncated(data: bytes) -> str:
    if not data:
        return "the file is empty (0 bytes)"
    return f"the file is truncated: its {len(data)} bytes have no end marker"
