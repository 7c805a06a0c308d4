"""Read one matrix of bytes from a MATLAB 5 file, in pure Python and NumPy.

SciPy's compiled reader reads every type of MATLAB, and a damaged file can crash the
process. SBD needs one field of one struct; anything else is refused here.

Format: "MAT-File Format", The MathWorks, chapter 1 (level 5).
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

_MATRIX, _COMPRESSED = 14, 15  # types of elements
_STRUCT_CLASS = 2  # of a matrix
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_NUMBERS |= {12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)
_MAX_BYTES = 64 << 20  # unpacked; SBD's images have at most 500 x 500 pixels


def read_field(data: bytes, variable: str, field: str) -> UInt8[np.ndarray, "h w"]:
    """Return a field of a 1x1 struct, whose values must be integers from 0 to 255.

    Raises:
        ValueError: If the file does not have this field, or is damaged.
    """
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is not a MATLAB 5 file")
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        for kind, content in _elements(data[128:], order):
            if kind == _COMPRESSED:
                content = _unpack(content)
                kind, content = next(_elements(content, order), (0, b""))
            if kind == _MATRIX and (found := _struct_field(content, order, field)):
                name, matrix = found
                if name == variable:
                    return _matrix(matrix, order)
    except (struct.error, zlib.error, OverflowError, StopIteration) as error:
        raise ValueError(f"it is damaged: {error}") from error
    raise ValueError(f"it has no {variable}.{field}")


def _unpack(content: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(content, _MAX_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {_MAX_BYTES:,} bytes")
    if not unpacker.eof:
        raise ValueError("it is damaged: the compressed data is cut off")
    return unpacked


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the content of each element."""
    position = 0
    while position + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, position)
        if kind >> 16:  # a small element: type and size share four bytes
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = position + 4, position + 8
            if size > 4:
                raise ValueError("it is damaged: a small element is too large")
        else:
            start = position + 8
            # Compressed elements are not padded to eight bytes.
            end = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data):
            raise ValueError("it is damaged: an element is longer than the file")
        yield kind, data[start : start + size]
        position = end


def _struct_field(content: bytes, order: str, field: str) -> tuple[str, bytes] | None:
    """Return a struct's name and the content of one field; None if it has none."""
    elements = _elements(content, order)
    flags, shape, name = (next(elements, (0, b""))[1] for _ in range(3))
    if not flags or struct.unpack_from(f"{order}I", flags)[0] & 0xFF != _STRUCT_CLASS:
        return None
    if np.prod(np.frombuffer(shape, f"{order}i4"), dtype=float) != 1:
        raise ValueError("it is damaged: the struct is not of shape 1x1")
    (length,) = struct.unpack(f"{order}i", next(elements)[1])
    names = next(elements)[1]
    if not 0 < length <= len(names):
        raise ValueError("it is damaged: the names of the fields are cut off")
    for start in range(0, len(names), length):
        kind, value = next(elements, (0, b""))
        if names[start : start + length].rstrip(b"\0") == field.encode():
            if kind != _MATRIX:
                raise ValueError(f"it is damaged: {field} is no matrix")
            return name.decode("latin-1"), value
    return None


def _matrix(content: bytes, order: str) -> UInt8[np.ndarray, "h w"]:
    elements = _elements(content, order)
    (_, flags), (_, shape), _, (kind, values) = (next(elements) for _ in range(4))
    bits = struct.unpack_from(f"{order}I", flags)[0]
    height, width = struct.unpack(f"{order}ii", shape)
    if bits & 0xFF not in _NUMERIC_CLASSES or bits & 0x800 or kind not in _NUMBERS:
        raise ValueError("it is no matrix of real numbers")
    numbers = np.frombuffer(values, order + _NUMBERS[kind])
    if min(height, width) <= 0 or numbers.size != height * width:
        raise ValueError(f"it has {numbers.size} values for {height} x {width} pixels")
    result = numbers.astype(np.uint8)
    if not np.array_equal(result, numbers):
        raise ValueError("it has values that are no integers from 0 to 255")
    # Columns are stored one after the other.
    return np.ascontiguousarray(result.reshape(width, height).T)
