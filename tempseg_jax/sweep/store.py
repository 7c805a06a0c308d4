"""The files of a sweep, each written atomically.

sweep.json                  tables, seeds, evaluated splits, steps of a run
config.json                 the config that every cell starts from
examples.npz                validation images and their labels, for the report
<cell>/seed<n>/             the workdir of one run: config, metrics.jsonl, pictures
    val.npz, train.npz, …   confusion matrix of each image, and calibration
    predictions.npz         predictions for the images in examples.npz
    final.json              written last: the run is finished
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data.subset import spaced_indices
from tempseg_jax.evaluation.evaluator import PredictedImage
from tempseg_jax.io.atomic import replacing
from tempseg_jax.io.json_files import read_json
from tempseg_jax.sweep.measurement import Measurement

LONGEST_SIDE = 512
"""Longest side of a stored example, in pixels."""


_WITHOUT = "restore it, or delete it: the report has no example predictions then"
_AGAIN = "the sweep then trains and measures this run again"


class Run(NamedTuple):
    """One cell trained with one seed."""

    cell: str
    seed: int

    def folder(self, sweep: Path) -> Path:
        """Return the workdir of this run."""
        return sweep / self.cell / f"seed{self.seed}"

    def final(self, sweep: Path) -> dict[str, Any] | None:
        """Return the content of `final.json`; None before the run is finished.

        Raises:
            ValueError: If the file is damaged.
        """
        path = self.folder(sweep) / "final.json"
        if not path.exists():
            return None
        remedy = f"restore it, or delete it: {_AGAIN}"
        content = read_json(path, remedy=remedy)
        if not isinstance(content, dict):
            raise ValueError(f"{path}: it is no JSON object; {remedy}")
        return content

    def finished(self, sweep: Path) -> bool:
        """Whether the run is trained and measured, or has diverged."""
        return (self.folder(sweep) / "final.json").exists()


def save_measurement(path: Path, measurement: Measurement) -> None:
    """Write the measurement of one split.

    Raises:
        OSError: If the file cannot be written.
    """
    arrays = measurement._asdict() | {
        "ids": np.array(measurement.ids),
        "confusion": measurement.confusion.astype(np.uint32),
    }
    with replacing(path) as partial:
        np.savez_compressed(partial, **arrays)


def load_measurement(path: Path) -> Measurement:
    """Read a file of `save_measurement`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged.
    """
    with _arrays(path, f"restore it, or delete its folder: {_AGAIN}") as arrays:
        return Measurement(
            arrays["ids"].tolist(),
            arrays["confusion"].astype(np.int64),
            arrays["nats"],
            arrays["bins"],
        )


def save_pictures(
    path: Path, examples: Sequence[PredictedImage], *, fields: tuple[str, ...]
) -> None:
    """Write fields of examples, resized to at most `LONGEST_SIDE` pixels.

    Args:
        path: Path of the .npz file.
        examples: The images.
        fields: Some of `image` (stored as JPEG), `label` and `prediction` (as PNG).

    Raises:
        OSError: If the file cannot be written.
    """
    arrays = {"ids": np.array([example.id for example in examples])}
    for i, example in enumerate(examples):
        for field in fields:
            arrays[f"{field}{i}"] = _encode(getattr(example, field))
    with replacing(path) as partial:
        np.savez(partial, **arrays)


def load_pictures(path: Path, *, field: str) -> dict[str, UInt8[np.ndarray, "..."]]:
    """Read one field from a file of `save_pictures`, by image id.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged.
    """
    with _arrays(path, _WITHOUT) as arrays:
        ids = arrays["ids"].tolist()
        return {id_: _decode(arrays[f"{field}{i}"]) for i, id_ in enumerate(ids)}


def copy_pictures(source: Path, target: Path, *, count: int) -> None:
    """Copy at most `count` evenly spaced examples from a file of `save_pictures`.

    Raises:
        OSError: If the copy cannot be written.
        ValueError: If `source` is damaged.
    """
    with _arrays(source, _WITHOUT) as arrays:
        ids = arrays["ids"]
        fields = {name.rstrip("0123456789") for name in arrays.files} - {"ids"}
        kept = spaced_indices(len(ids), count)
        chosen = {"ids": ids[kept]}
        for new, old in enumerate(kept):
            chosen |= {f"{field}{new}": arrays[f"{field}{old}"] for field in fields}
        with replacing(target) as partial:
            np.savez(partial, **chosen)


@contextmanager
def _arrays(path: Path, remedy: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Open an .npz file; an error in the block says that it is damaged."""
    try:
        with np.load(path) as arrays:
            yield arrays
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: it is damaged ({error!s:.80}); {remedy}") from None


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
