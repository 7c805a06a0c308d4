"""What a sweep leaves on disk, and how it is written: whole files or none.

sweep.json                  tables, seeds and what was scored; how it was run
config.json                 the config that every cell starts from
examples.npz                validation images and their labels, to look at
<cell>/seed<n>/             the workdir of one run: config, metrics.jsonl, pictures
    val.npz, train.npz, …   one confusion matrix an image, calibration
    predictions.npz         of the images in examples.npz
    final.json              the last file to be written: the run is finished
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from tempseg_jax.evaluation.evaluator import Example
from tempseg_jax.sweep.measure import Measurement

LONGEST_SIDE = 512
"""Of the stored examples, in pixels."""


class Run(NamedTuple):
    """One cell with one seed."""

    cell: str
    seed: int

    def folder(self, sweep: Path) -> Path:
        """Return its workdir."""
        return sweep / self.cell / f"seed{self.seed}"

    def finished(self, sweep: Path) -> bool:
        """Whether all that the report needs of it has been written."""
        return (self.folder(sweep) / "final.json").exists()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a file by this content, at once."""
    text = json.dumps(content, indent=2) + "\n"
    _replace(path, lambda file: file.write(text.encode()))


def save_measurement(path: Path, found: Measurement) -> None:
    """Write one split's measurement."""
    arrays = found._asdict() | {
        "ids": np.array(found.ids),
        "confusion": found.confusion.astype(np.uint32),
    }
    _replace(path, lambda file: np.savez_compressed(file, **arrays))


def load_measurement(path: Path) -> Measurement:
    """Read what `save_measurement` wrote."""
    with np.load(path) as arrays:
        return Measurement(
            arrays["ids"].tolist(),
            arrays["confusion"].astype(np.int64),
            arrays["nats"],
            arrays["bins"],
        )


def save_pictures(
    path: Path, pictures: Sequence[Example], *, fields: tuple[str, ...]
) -> None:
    """Write some fields of pictures, reduced to `LONGEST_SIDE`: JPEG, else PNG."""
    arrays = {"ids": np.array([picture.id for picture in pictures])}
    for i, picture in enumerate(pictures):
        for field in fields:
            arrays[f"{field}{i}"] = _encode(getattr(picture, field))
    _replace(path, lambda file: np.savez(file, **arrays))


def load_pictures(path: Path, *, field: str) -> dict[str, UInt8[np.ndarray, "..."]]:
    """Read one field of what `save_pictures` wrote, by id."""
    with np.load(path) as arrays:
        ids = arrays["ids"].tolist()
        return {id_: _decode(arrays[f"{field}{i}"]) for i, id_ in enumerate(ids)}


def _encode(pixels: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "n"]:
    scale = min(1.0, LONGEST_SIDE / max(pixels.shape[:2]))
    size = [max(1, round(n * scale)) for n in pixels.shape[1::-1]]
    if pixels.ndim == 3:
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        small = np.ascontiguousarray(small[..., ::-1])
        return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST)
    return cv2.imencode(".png", small)[1]


def _decode(data: UInt8[np.ndarray, "n"]) -> UInt8[np.ndarray, "..."]:
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        write(file)
    partial.replace(path)
