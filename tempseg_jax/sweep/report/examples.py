"""Images on which two settings disagree most, one from each part of the split."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data.labels import color_labels
from tempseg_jax.sweep.cells import CELLS, TABLES
from tempseg_jax.sweep.report.collect import Evidence
from tempseg_jax.sweep.report.tables import paired
from tempseg_jax.types import IGNORE_LABEL

COUNT = 4
"""Parts of the split, each of which shows one image."""
FIRST_RIGHT, SECOND_RIGHT, BOTH_WRONG = (0, 114, 178), (230, 159, 0), (204, 121, 167)


class Disagreement(NamedTuple):
    """One image: its pictures as data URIs, each with what it shows."""

    id: str
    fraction: float  # of the scored pixels
    tiles: list[tuple[str, str]]


class Comparison(NamedTuple):
    """Two settings with one seed."""

    first: str
    second: str
    seed: int
    examples: list[Disagreement]


def compare(evidence: Evidence, tables: Sequence[str]) -> Comparison | str:
    """Show the first cell of a table and the one whose val mIoU differs most from it.

    The first of the tables that has both; if none has, the reason.
    """
    for table in tables:
        reference, *others = TABLES[table].cells
        found = {x: paired(evidence, x, reference, "val", "miou") for x in others}
        known = {x: abs(f.difference) for x, f in found.items() if f is not None}
        known = {
            x: difference
            for x, difference in known.items()
            if evidence.cell(x) != evidence.cell(reference)
        }
        if known:
            return _compare(evidence, reference, max(known, key=known.get))
    return (
        "No setting of a table has finished with a seed with which the table's first "
        "has, so there is nothing to compare."
    )


def _compare(evidence: Evidence, first: str, second: str) -> Comparison | str:
    common = evidence.finished(first).keys() & evidence.finished(second).keys()
    fractions = {seed: _differ(evidence, first, second, seed) for seed in common}
    seed = min((seed for seed in common if fractions[seed]), default=None)
    if seed is None:
        return (
            f"{CELLS[first].title} and {CELLS[second].title} differ most, but their "
            "predictions.npz, or the sweep's examples.npz, have no image in common or "
            "are missing, so there is nothing to show."
        )
    fraction = fractions[seed]
    a, b = (evidence.predictions(x, seed) for x in (first, second))
    images, labels = evidence.examples("image"), evidence.examples("label")
    # Neighbors may be frames of one film: one from each part of the split.
    parts = np.array_split(sorted(fraction), min(COUNT, len(fraction)))
    chosen = [str(max(part, key=fraction.get)) for part in parts]
    chosen.sort(key=fraction.get, reverse=True)
    examples = []
    for id_ in chosen:
        pictures = {
            "image": images[id_],
            "ground truth": color_labels(labels[id_], evidence.palette),
            CELLS[first].title: color_labels(a[id_], evidence.palette),
            CELLS[second].title: color_labels(b[id_], evidence.palette),
            "who is right": _who(images[id_], labels[id_], a[id_], b[id_]),
        }
        tiles = [(title, _data_uri(pixels)) for title, pixels in pictures.items()]
        examples.append(Disagreement(id_, fraction[id_], tiles))
    return Comparison(CELLS[first].title, CELLS[second].title, seed, examples)


def _differ(evidence: Evidence, first: str, second: str, seed: int) -> dict[str, float]:
    """Of each image, the part of the scored pixels on which they disagree."""
    a, b = (evidence.predictions(x, seed) for x in (first, second))
    labels = evidence.examples("label")
    found = {}
    for id_ in a.keys() & b.keys() & labels.keys():
        scored = labels[id_] != IGNORE_LABEL
        if scored.any():
            found[id_] = float(np.mean((a[id_] != b[id_])[scored]))
    return found


def _who(
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
    first: UInt8[np.ndarray, "h w"],
    second: UInt8[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    gray = (image.mean(axis=-1, keepdims=True) / 3).astype(np.uint8)
    shown = np.repeat(gray, 3, axis=-1)
    differ = (first != second) & (label != IGNORE_LABEL)
    shown[differ] = BOTH_WRONG
    shown[differ & (first == label)] = FIRST_RIGHT
    shown[differ & (second == label)] = SECOND_RIGHT
    return shown


def _data_uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    pixels = np.ascontiguousarray(pixels[..., ::-1])
    photograph = len(np.unique(pixels.reshape(-1, 3), axis=0)) > 256
    kind = "jpeg" if photograph else "png"
    data = cv2.imencode(f".{kind}", pixels)[1].tobytes()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
