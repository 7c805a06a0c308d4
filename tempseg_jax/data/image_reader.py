"""What an image file means as upright 8-bit RGB: one definition for every command.

Preparing, training, evaluating, predicting, the demo page and `use.py` of an export
decode images by these rules. This file is copied into `use.py`, so it needs only NumPy
and Pillow.

- The EXIF orientation is applied; one that cannot be read counts as upright.
- Gray and palette images are converted to RGB, 16-bit values keep their high byte, and
  transparent images are composited on white. ICC profiles and gamma are ignored.
- CMYK, Lab, float and 32-bit pixels are refused: they have no unique meaning as RGB.
- Of files with several pictures the first is read.
"""

import io
import os
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""The formats that are read, by Pillow's names."""

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Their file name extensions, in lower case."""

JPEG = b"\xff\xd8"
PNG = b"\x89PNG\r\n\x1a\n"
"""What files of these formats start with."""

EXIF = b"Exif\0\0"
"""What the EXIF data of a JPEG start with."""

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JPEG_END = b"\xff\xd9"
_JPEG_ALONE = (b"\xff\x01", b"\xff\xd8")  # markers without a segment after them
_PNG_END = b"IEND\xaeB`\x82"
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
_CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr")
_ORIENTATION = 0x0112  # the EXIF tag

# Pillow warns above 89 megapixels, and raises above twice that.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# It also warns of damaged EXIF data, of which only the orientation is used here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class BadFile(ValueError):
    """A file that cannot be used; the message has its name and the reason."""


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        BadFile: If it does not exist, cannot be read, or is a folder, a pipe or a
            device, which might never end.
    """
    if not os.path.lexists(path):
        raise BadFile(f"{path}: there is no such file")
    if not os.path.exists(path):
        raise BadFile(f"{path}: is a link to a file that does not exist")
    if os.path.isdir(path):
        raise BadFile(f"{path}: is a folder, not an image file")
    if not os.path.isfile(path):
        raise BadFile(f"{path}: is a pipe or a device, not a file")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise BadFile(f"{path}: cannot be read ({reason})") from error


def decode(data: bytes, *, name: str) -> np.ndarray:
    """Return the image in a file's content as upright uint8 RGB (h, w, 3).

    Raises:
        BadFile: If the content is empty, truncated or broken, of a format that is not
            in FORMATS, too large (Pillow's limit), or of pixels that have no unique
            meaning as RGB. The message starts with `name`.
    """
    with open_image(data, name=name) as image:
        return to_rgb(image, name=name)


def open_image(data: bytes, *, name: str) -> Image.Image:
    """Check the header and the end of an image file; return the image, not decoded.

    Raises:
        BadFile: As `decode`, as far as it can be seen without decoding.
    """
    check_whole(data, name=name)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadFile(f"{name}: the image is too large ({error})") from error
    # Pillow's readers raise errors of many types for broken files.
    except Exception as error:
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"is no image in a format that is read ({', '.join(FORMATS)})"
            raise BadFile(f"{name}: {reason}") from error
        raise BadFile(f"{name}: the header is damaged ({error})") from error
    if image.format == "PNG":
        png_chunks(data, name=name)
    return image


def check_whole(data: bytes, *, name: str) -> None:
    """Check that a file is not empty, and that a JPEG or PNG is not truncated.

    Data after the end marker are allowed: phones append videos, and editors thumbnails.

    Raises:
        BadFile: If it is empty, or there is no end marker.
    """
    if not data:
        raise BadFile(f"{name}: the file is empty (0 bytes)")
    whole = True
    if data.startswith(JPEG):
        whole = data.endswith(_JPEG_END) or _has_jpeg_end(data)
    elif data.startswith(PNG):
        whole = _PNG_END in data
    if not whole:
        raise BadFile(
            f"{name}: the file is truncated: its {len(data)} bytes have no end marker"
        )


def _has_jpeg_end(data: bytes) -> bool:
    """Go from marker to marker up to the end marker of the first picture.

    Segments are skipped, because an EXIF thumbnail has an end marker of its own. In
    compressed data, 0xff is followed by 0 or a restart marker (ITU-T T.81, B.1.1).
    """
    position = 0
    while marker := _JPEG_MARKER.search(data, position):
        position = marker.end()
        if marker[0] == _JPEG_END:
            return True
        if marker[0] not in _JPEG_ALONE:
            position += int.from_bytes(data[position : position + 2], "big")
    return False


def to_rgb(image: Image.Image, *, name: str) -> np.ndarray:
    """Return a Pillow image as upright uint8 RGB (h, w, 3).

    Raises:
        BadFile: If the image cannot be decoded, or its pixels have no unique meaning as
            RGB.
    """
    try:
        image.load()
        turn = orientation(image)
        if image.format == "TIFF":  # newer versions of Pillow have turned it already
            image, turn = ImageOps.exif_transpose(image), 1
        return upright(_rgb(image, name=name), turn)
    except BadFile:
        raise
    # Pillow's decoders raise errors of many types for broken files.
    except Exception as error:
        raise BadFile(f"{name}: cannot be decoded ({error})") from error


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, of a JPEG, or of a decoded PNG or WebP."""
    exif = image.info.get("exif", b"")
    try:
        tiff = exif.removeprefix(EXIF)
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for i in range(count):
            entry = start + 2 + 12 * i
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION:
                number = {3: "H", 4: "I"}[kind]  # SHORT, LONG
                (value,) = struct.unpack_from(order + number, tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except (AttributeError, KeyError, struct.error):
        pass  # no EXIF, or broken
    return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels (h, w, c), turned as their EXIF orientation says."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def png_chunks(data: bytes, *, name: str) -> dict[str, bytes]:
    """Return a PNG's chunks by their types, without image data, up to the end marker.

    Raises:
        BadFile: If a chunk is incomplete, or its checksum is wrong.
    """
    chunks: dict[str, bytes] = {}
    position = len(PNG)
    while "IEND" not in chunks:
        try:
            length, kind = struct.unpack_from(">I4s", data, position)
            (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        except struct.error:
            raise BadFile(f"{name}: the PNG file has an incomplete chunk") from None
        content = data[position + 4 : position + 8 + length]
        if kind == b"IDAT":  # its checksum is verified by the decoder
            content = kind
        elif zlib.crc32(content) != checksum:
            raise BadFile(f"{name}: the chunk {kind} of the PNG file is damaged")
        chunks.setdefault(kind.decode("latin-1"), content[4:])
        position += 12 + length
    return chunks


def _rgb(image: Image.Image, *, name: str) -> np.ndarray:
    # Older versions of Pillow decode 16-bit gray PNGs to 32 bits.
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format == "PNG"):
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)
    if image.mode not in _CONVERTIBLE:
        raise BadFile(
            f"{name}: pixels of type {image.mode!r} have no unique meaning as RGB; "
            "convert the image to 8-bit RGB first"
        )
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))
