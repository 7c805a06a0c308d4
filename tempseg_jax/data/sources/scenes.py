"""Generated scenes, a dataset that needs no files.

Textured objects lie on a ground, occlude each other, cast shadows and are lit from one
side; the camera adds noise. As in VOC, a border of void surrounds every object.
Only integer arithmetic and the raw bits of PCG64 are used, whose stream never changes,
so that the pixels are the same on every machine and with every version of NumPy.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8

from tempseg_jax.data import codec
from tempseg_jax.data.sources.base import Entry, Record, digest
from tempseg_jax.data.sources.scene_objects import (
    ONE,
    SHAPES,
    TEXTURES,
    UNIT,
    Plane,
    direction,
)
from tempseg_jax.types import IGNORE_LABEL

CLASSES = ("ground", "stone", "brick", "melon", "tile", "cone", "star", "ring")
COLORS = (
    (110, 120, 80),
    (120, 130, 160),
    (190, 70, 50),
    (50, 160, 70),
    (70, 110, 220),
    (250, 150, 40),
    (210, 60, 170),
    (240, 220, 60),
)
SIZE = 128
_COUNTS = {"train": 512, "val": 64, "test": 256}
_NBYTES = 42_000  # approximate size of a PNG
_RECIPE = 1  # increase it whenever a pixel changes


class Scenes:
    """512 scenes for train, 64 for val and 256 for test, of 128 x 128 pixels."""

    name = "scenes"
    where = "generated scenes"
    splits = ("train", "val", "test")

    def fingerprint(self) -> str:
        """Return a digest of the version of the generator."""
        return digest(_RECIPE)

    def split_expression(self, split: str) -> str:
        """Return `split` if it is train, val or test."""
        if split not in self.splits:
            raise ValueError(
                f"scenes has no split {split!r}; choose one of {', '.join(self.splits)}"
            )
        return split

    def notes(self) -> tuple[str, ...]:
        """Return no sentences: files that no split uses are not looked for."""
        return ()

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the split's scenes; the seed of a scene is its index in the split."""
        stream = self.splits.index(split)
        return [
            Entry(
                id=id_,
                nbytes=_NBYTES,
                load=functools.partial(_load, id_, (stream, index)),
            )
            for index, id_ in enumerate(
                f"{split}_{index:04d}" for index in range(_COUNTS[split])
            )
        ]

    def classes(self) -> tuple[tuple[str, ...], UInt8[np.ndarray, "k 3"]]:
        """Return the names and RGB colors of the ground and the seven objects."""
        return CLASSES, np.array(COLORS, np.uint8)


def _load(id_: str, seed: tuple[int, int]) -> Record:
    image, label = scene(seed, size=SIZE)
    return {
        "id": id_,
        "image": codec.encode_image(image),
        "label": codec.encode_label(label),
    }


class _Random:
    """Random integers from the raw bits of PCG64."""

    def __init__(self, seed: tuple[int, int]):
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def plane(self, high: int, *, shape: tuple[int, ...]) -> Int[np.ndarray, "..."]:
        raw = self._bits.random_raw(math.prod(shape))
        return (raw >> np.uint64(33)).astype(np.int32).reshape(shape) % high

    def between(self, low: int, high: int) -> int:
        return low + (self._bits.random_raw() >> 33) % (high - low + 1)


def scene(
    seed: tuple[int, int], *, size: int
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Return the image and the label of one scene of `size` x `size` pixels."""
    random = _Random(seed)
    y, x = np.mgrid[:size, :size].astype(np.int32) * ONE + ONE // 2
    noise = _smooth_noise(random, size=size)
    image = _ground(random, noise)
    label = np.zeros((size, size), np.uint8)
    owner = np.zeros((size, size), np.uint8)
    for number in range(1, random.between(4, 7) + 1):
        kind = random.between(1, len(CLASSES) - 1)
        radius = random.between(size * 2, size * 4)
        margin = size * ONE // 8
        cx, cy = (random.between(margin, size * ONE - margin) for _ in range(2))
        turn = direction(random.between(0, 63), 64)
        part = _around(cy, radius), _around(cx, radius)
        u, v = _turned(x[part] - cx, y[part] - cy, *turn)
        depth = SHAPES[kind](u, v, radius)
        shadow = SHAPES[kind](*_shift(u, v, radius // 6), radius)
        shaded = image[part] * (256 - np.clip(shadow * 2, 0, 96))[..., None] >> 8
        surface = TEXTURES[kind](u, v, radius, noise[part])
        shade = 176 + np.clip(depth * 320 // radius, 0, 112)
        surface = np.clip(surface * shade[..., None] >> 8, 0, 255)
        cover = np.clip(depth * 256 // ONE + 128, 0, 256)[..., None]
        image[part] = shaded * (256 - cover) + surface * cover >> 8
        label[part][depth > 0] = kind
        owner[part][depth > 0] = number
    label[_borders(owner)] = IGNORE_LABEL
    return _light(random, image, x, y), label


def _around(center: int, radius: int) -> slice:
    """Return the rows, or columns, that an object and its shadow can reach.

    The tips of a star are farthest from the center, at 1.42 times the radius, and the
    shadow is shifted by a sixth of the radius along both axes of the object.
    """
    reach = radius * 5 // 3 + ONE
    return slice(max(0, (center - reach) // ONE), (center + reach) // ONE + 1)


def _turned(dx: Plane, dy: Plane, sin: int, cos: int) -> tuple[Plane, Plane]:
    """Return coordinates along the axes of an object that is rotated."""
    return (dx * cos + dy * sin) // UNIT, (dy * cos - dx * sin) // UNIT


def _shift(u: Plane, v: Plane, by: int) -> tuple[Plane, Plane]:
    return u - by, v - by


def _smooth_noise(random: _Random, *, size: int) -> Plane:
    """Return smooth noise of three scales, from 0 to 255."""
    total = np.zeros((size, size), np.int32)
    for octave, weight in ((32, 4), (16, 2), (4, 2)):
        cells = size // octave + 2
        lattice = random.plane(256, shape=(cells, cells))
        cell, part = np.divmod(np.arange(size, dtype=np.int32), octave)
        rows = (
            lattice[cell] * (octave - part)[:, None] + lattice[cell + 1] * part[:, None]
        )
        total += (
            weight
            * (rows[:, cell] * (octave - part) + rows[:, cell + 1] * part)
            // octave**2
        )
    return total // 8


def _ground(random: _Random, noise: Plane) -> np.ndarray:
    """Return the RGB ground: earth, or grass where the noise is high."""
    earth, grass = np.int32((122, 100, 74)), np.int32((104, 128, 70))
    part = np.clip((noise - 96) * 4, 0, 256)[..., None]
    base = earth * (256 - part) + grass * part >> 8
    grain = random.plane(40, shape=noise.shape) - 20
    return base + (grain + (noise - 128) // 3)[..., None]


def _borders(owner: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return whether a pixel's 3 x 3 neighborhood holds more than one owner."""
    padded = np.pad(owner, 1, mode="edge")
    size = owner.shape[0]
    around = np.stack(
        [padded[i : i + size, j : j + size] for i in range(3) for j in range(3)]
    )
    return around.max(axis=0) != around.min(axis=0)


def _light(
    random: _Random, image: np.ndarray, x: Plane, y: Plane
) -> UInt8[np.ndarray, "h w 3"]:
    """Light the scene from one side and add camera noise."""
    sin, cos = direction(random.between(0, 63), 64)
    size = image.shape[0] * ONE
    slope = ((x - size // 2) * cos + (y - size // 2) * sin) // UNIT
    light = random.between(216, 288) + slope * random.between(32, 128) // size
    noise = (
        random.plane(21, shape=image.shape) + random.plane(21, shape=image.shape) - 20
    )
    return np.clip((image * light[..., None] >> 8) + noise, 0, 255).astype(np.uint8)
