"""Validation images on which the predictions of two settings differ most."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data.labels import color_labels
from tempseg_jax.sweep.cells import CELLS, TABLES
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.report.tables import paired_difference
from tempseg_jax.types import IGNORE_LABEL

COUNT = 4
"""Number of images; each is from another part of the split, in the order of ids."""
FIRST_CORRECT, SECOND_CORRECT = (0, 114, 178), (230, 159, 0)
BOTH_WRONG = (204, 121, 167)


class Disagreement(NamedTuple):
    """One image, with captioned pictures of its label and predictions."""

    id: str
    fraction: float  # of the scored pixels on which the predictions differ
    tiles: list[tuple[str, str]]  # caption, data URI


class Comparison(NamedTuple):
    """The predictions of two settings trained with one seed."""

    first: str
    second: str
    seed: int
    examples: list[Disagreement]


def compare(sweep: SweepResults, tables: Sequence[str]) -> Comparison | str:
    """Compare a table's first cell with the cell whose val mIoU differs most from it.

    The first of the tables is used that has such a pair of finished cells.

    Returns:
        The comparison, or the reason why there is none.
    """
    for table in tables:
        reference, *others = TABLES[table].cells
        differences = {
            x: paired_difference(sweep, x, reference, "val", "miou") for x in others
        }
        sizes = {
            x: abs(difference.difference)
            for x, difference in differences.items()
            if difference is not None and sweep.cell(x) != sweep.cell(reference)
        }
        if sizes:
            return _compare(sweep, reference, max(sizes, key=sizes.get))
    return (
        "There is nothing to compare: no setting has finished a seed that the first "
        "setting of its table has finished too."
    )


def _compare(sweep: SweepResults, first: str, second: str) -> Comparison | str:
    common = sweep.finished(first).keys() & sweep.finished(second).keys()
    fractions = {
        seed: _differing_fractions(sweep, first, second, seed) for seed in common
    }
    seed = min((seed for seed in common if fractions[seed]), default=None)
    if seed is None:
        return (
            f"The settings that differ most are {CELLS[first].title} and "
            f"{CELLS[second].title}, but there is nothing to show: their "
            "predictions.npz or the sweep's examples.npz are missing, or have no image "
            "in common."
        )
    fraction = fractions[seed]
    predictions = [sweep.predictions(x, seed) for x in (first, second)]
    images, labels = sweep.examples("image"), sweep.examples("label")
    # Neighboring ids may be frames of one video, so each part of the split gives one.
    parts = np.array_split(sorted(fraction), min(COUNT, len(fraction)))
    chosen = [str(max(part, key=fraction.get)) for part in parts]
    chosen.sort(key=fraction.get, reverse=True)
    examples = []
    for id_ in chosen:
        a, b = (x[id_] for x in predictions)
        pictures = {
            "image": images[id_],
            "ground truth": color_labels(labels[id_], sweep.palette),
            CELLS[first].title: color_labels(a, sweep.palette),
            CELLS[second].title: color_labels(b, sweep.palette),
            "which is correct": _draw_correct(images[id_], labels[id_], a, b),
        }
        tiles = [(caption, _data_uri(pixels)) for caption, pixels in pictures.items()]
        examples.append(Disagreement(id_, fraction[id_], tiles))
    return Comparison(CELLS[first].title, CELLS[second].title, seed, examples)


def _differing_fractions(
    sweep: SweepResults, first: str, second: str, seed: int
) -> dict[str, float]:
    """Return by image id the fraction of scored pixels whose predictions differ."""
    a, b = (sweep.predictions(x, seed) for x in (first, second))
    labels = sweep.examples("label")
    fractions = {}
    for id_ in a.keys() & b.keys() & labels.keys():
        scored = labels[id_] != IGNORE_LABEL
        if scored.any():
            fractions[id_] = float(np.mean((a[id_] != b[id_])[scored]))
    return fractions


def _draw_correct(
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
    first: UInt8[np.ndarray, "h w"],
    second: UInt8[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Color the pixels that differ by who is correct, over a dark gray image."""
    gray = (image.mean(axis=-1, keepdims=True) / 3).astype(np.uint8)
    shown = np.repeat(gray, 3, axis=-1)
    differ = (first != second) & (label != IGNORE_LABEL)
    shown[differ] = BOTH_WRONG
    shown[differ & (first == label)] = FIRST_CORRECT
    shown[differ & (second == label)] = SECOND_CORRECT
    return shown


def _data_uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """Encode as JPEG if the image has more than 256 colors, else as PNG."""
    pixels = np.ascontiguousarray(pixels[..., ::-1])
    photograph = len(np.unique(pixels.reshape(-1, 3), axis=0)) > 256
    kind = "jpeg" if photograph else "png"
    data = cv2.imencode(f".{kind}", pixels)[1].tobytes()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
