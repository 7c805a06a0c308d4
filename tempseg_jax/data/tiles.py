"""Images and labels stored as losslessly compressed tiles, to read windows of them.

A crop of a large image decodes only the tiles that it touches; a PNG or a JPEG must be
decoded whole. The arrays are in Zarr 3 format with one file per image, read and written
by TensorStore: each tile is compressed by Zstandard and has a checksum. Zstandard finds
little to compress in the pixels of a photograph, so images are stored as differences
(`to_residual`), which are smaller than a PNG.
"""

import copy
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorstore as ts
from jaxtyping import UInt8

from tempseg_jax.data.transforms import CropSource
from tempseg_jax.io import machine_errors
from tempseg_jax.io.json_files import write_json

VERSION = 1  # increase it when the stored content changes
TILE = 128
"""Height and width of a tile in pixels."""
GROUP = 16
"""Rows of which only the first is stored by itself, see `to_residual`."""
CONTENT = "tiles.json"
"""Name of the file that is written last, with the size of each image."""

_FIELDS = {"sizes", "files_and_bytes"}
_DIGEST = "sha256"  # key of the digest of the file's other content
_CHANNELS = {"image": 3, "label": 1}


class Tiles:
    """The images of one split, of which windows can be read.

    Args:
        folder: The folder that `tile_preparation.prepare` wrote.

    Raises:
        OSError: If files are missing or were changed, or cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            content = json.loads((folder / CONTENT).read_text())
            stored = content.pop(_DIGEST, None)  # older tiles have none
            digest = _digest_of(content)
            if stored not in (None, digest) or content.keys() != _FIELDS:
                raise ValueError(f"{CONTENT} has changed since it was written")
            if list(stored_bytes(folder)) != content["files_and_bytes"]:
                raise ValueError("files are missing or were changed")
            self._arrays = {
                name: ts.open(_spec(folder / name), open=True).result()
                for name in _CHANNELS
            }
            self._sizes = content["sizes"]
        except (
            OSError, ValueError, LookupError, TypeError, AttributeError
        ) as error:  # fmt: skip
            machine_errors.reraise(error, path=folder)
            raise OSError(
                f"{folder}: {error}; delete this folder, and the tiles are prepared"
                " again"
            ) from error
        self._indices = list(range(len(self._sizes)))

    def choose(self, indices: Sequence[int]) -> "Tiles":
        """Return the images with these indices, in this order."""
        chosen = copy.copy(self)
        chosen._indices = [self._indices[i] for i in indices]
        return chosen

    def __len__(self) -> int:
        return len(self._indices)

    def sizes(self) -> list[tuple[int, int]]:
        """Return height and width of each image; (0, 0) if it has no tiles."""
        return [tuple(self._sizes[i]) for i in self._indices]

    def nbytes(self, index: int) -> int:
        """Return the size of an image and its label in memory, in bytes.

        It is 0 for an image that cannot be decoded, which has no tiles.
        """
        height, width = self._sizes[self._indices[index]]
        return height * width * sum(_CHANNELS.values())

    def __getitem__(self, index: int) -> CropSource:
        """Return an image and its label, of which only slices are read.

        Slicing raises OSError if a file cannot be read or is damaged.
        """
        index = self._indices[index]
        height, width = self._sizes[index]
        return {
            "image": _Image(self._arrays["image"], index, (height, width, 3)),
            "label": _Label(self._arrays["label"], index, (height, width)),
        }


@dataclasses.dataclass(frozen=True)
class _Image:
    """One stored image, which is read by `image[top:bottom, left:right]`."""

    array: ts.TensorStore
    index: int
    shape: tuple[int, int, int]

    def __getitem__(self, window: tuple[slice, slice]) -> UInt8[np.ndarray, "h w 3"]:
        rows, columns = window
        first = rows.start - rows.start % GROUP
        residual = _read(self.array[self.index, first : rows.stop, columns])
        return from_residual(residual, skip=rows.start - first)


@dataclasses.dataclass(frozen=True)
class _Label:
    """One stored label, which is read by `label[top:bottom, left:right]`."""

    array: ts.TensorStore
    index: int
    shape: tuple[int, int]

    def __getitem__(self, window: tuple[slice, slice]) -> UInt8[np.ndarray, "h w"]:
        return _read(self.array[(self.index, *window, 0)])


def create(
    folder: Path, *, count: int, height: int, width: int
) -> dict[str, ts.TensorStore]:
    """Create the arrays of images and of labels.

    Args:
        folder: The folder of the arrays.
        count: Number of images.
        height: Height of the highest image in pixels.
        width: Width of the widest image in pixels. Tiles outside an image are not
            stored.
    """
    tile = [1, TILE, TILE]
    image = [1, -(-height // TILE) * TILE, -(-width // TILE) * TILE]  # one file
    arrays = {}
    for name, channels in _CHANNELS.items():
        metadata = {
            "shape": [count, height, width, channels],
            "data_type": "uint8",
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [*image, channels]},
            },
            "chunk_key_encoding": {"name": "v2"},  # files in one folder
            "codecs": [_sharding([*tile, channels])],
        }
        spec = {**_spec(folder / name), "metadata": metadata}
        # Otherwise an image of zeros has no file, as if it had been lost.
        spec["store_data_equal_to_fill_value"] = True
        arrays[name] = ts.open(spec, create=True).result()
    return arrays


def write(
    arrays: dict[str, ts.TensorStore],
    index: int,
    *,
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
) -> None:
    """Write one image and its label to the arrays that `create` returned.

    Raises:
        ValueError: From TensorStore, if a file cannot be written.
    """
    height, width = label.shape
    stored = {"image": to_residual(image), "label": label[..., None]}
    for name, values in stored.items():
        arrays[name][index, :height, :width].write(values).result()


def write_content(folder: Path, *, sizes: Sequence[tuple[int, int]]) -> None:
    """Write the last file of the tiles, which has a digest of its content.

    Args:
        folder: The folder of the arrays, with all images.
        sizes: Height and width of each image; (0, 0) if it has no tiles.
    """
    content = {"sizes": sizes, "files_and_bytes": stored_bytes(folder)}
    write_json(folder / CONTENT, content | {_DIGEST: _digest_of(content)})


def _digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content as JSON, which has lists for tuples."""
    text = json.dumps([content["sizes"], content["files_and_bytes"]])
    return hashlib.sha256(text.encode()).hexdigest()


def stored_bytes(folder: Path) -> tuple[int, int]:
    """Return the number of the files of images and labels, and their bytes in total."""
    sizes = [
        entry.stat().st_size
        for name in _CHANNELS
        for entry in os.scandir(folder / name)
        if entry.is_file()
    ]
    return len(sizes), sum(sizes)


def to_residual(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return R - G, G, B - G, each minus its value in the row above, modulo 256.

    In every 16th row nothing is subtracted, so that reading can start there.
    """
    green = image[..., 1]
    planes = np.stack([image[..., 0] - green, green, image[..., 2] - green], axis=-1)
    residual = planes.copy()
    residual[1:] -= planes[:-1]
    residual[::GROUP] = planes[::GROUP]
    return residual


def from_residual(
    residual: UInt8[np.ndarray, "h w 3"], *, skip: int
) -> UInt8[np.ndarray, "rows w 3"]:
    """Invert `to_residual`, in place.

    Args:
        residual: Rows from a multiple of 16 on; any columns.
        skip: Number of rows at the top that are left out of the result.
    """
    for row in range(1, min(GROUP, len(residual))):
        below = residual[row::GROUP]  # this row of every group
        np.add(below, residual[row - 1 :: GROUP][: len(below)], out=below)
    image = residual[skip:]
    green = cv2.extractChannel(image, 1)
    image += cv2.merge((green, np.zeros_like(green), green))
    return image


def _read(window: ts.TensorStore) -> UInt8[np.ndarray, "..."]:
    try:
        return window.read().result()
    except ValueError as error:
        machine_errors.reraise(error, path="tiles")
        raise OSError(
            f"tiles cannot be read ({error}); delete their folder, and they are"
            " prepared again"
        ) from error


def _spec(folder: Path) -> dict[str, Any]:
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder.absolute()}/"},
    }


def _sharding(tile: list[int]) -> dict[str, Any]:
    zstd = {"name": "zstd", "configuration": {"level": 1}}
    checksum = {"name": "crc32c"}
    little_endian = {"name": "bytes", "configuration": {"endian": "little"}}
    configuration = {
        "chunk_shape": tile,
        "codecs": [{"name": "bytes"}, zstd, checksum],
        "index_codecs": [little_endian, checksum],
    }
    return {"name": "sharding_indexed", "configuration": configuration}
