"""Generated scenes: the embedded default, the same on every machine.

Textured solids lie on a mottled ground, hide each other, cast shadows and are lit
from one side; the camera adds noise. As in VOC, a rim of void runs along every outline.
Only integers and the raw bits of PCG64 are used, whose stream never changes, so that
the pixels are the same on every machine and with every version of NumPy.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8

from tempseg_jax.data import codec
from tempseg_jax.data.sources.base import Entry, Record, digest
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
_COUNTS = {"train": 512, "val": 64}
_NBYTES = 42_000  # of a PNG, about
_ONE = 16  # lengths are in sixteenths of a pixel
_UNIT = 1024  # sines and directions are in 1024ths
_RECIPE = 1  # raise it whenever a pixel changes

Plane = Int[np.ndarray, "h w"]


class Scenes:
    """`train` has 512 scenes and `val` 64, of 128 x 128 pixels."""

    name = "scenes"
    where = "generated scenes"
    splits = ("train", "val")

    def fingerprint(self) -> str:
        """Return a digest of the recipe's number."""
        return digest(_RECIPE)

    def split_expression(self, split: str) -> str:
        """Return `split` if it is train or val."""
        if split not in self.splits:
            raise ValueError(f"scenes has no split {split!r}; it has train, val")
        return split

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the split's scenes; a scene's seed is its place in the split."""
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
        """Return the ground and the seven solids."""
        return CLASSES, np.array(COLORS, np.uint8)


def _load(id_: str, seed: tuple[int, int]) -> Record:
    image, label = scene(seed, size=SIZE)
    return {
        "id": id_,
        "image": codec.encode_image(image),
        "label": codec.encode_label(label),
    }


class _Dice:
    """Integers from the raw bits of PCG64."""

    def __init__(self, seed: tuple[int, int]):
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def plane(self, high: int, *, shape: tuple[int, ...]) -> Int[np.ndarray, "..."]:
        raw = self._bits.random_raw(math.prod(shape))
        return (raw >> np.uint64(33)).astype(np.int64).reshape(shape) % high

    def between(self, low: int, high: int) -> int:
        return low + int(self.plane(high - low + 1, shape=(1,))[0])


def scene(
    seed: tuple[int, int], *, size: int
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Return one scene's image and labels, `size` pixels high and wide."""
    dice = _Dice(seed)
    y, x = np.mgrid[:size, :size] * _ONE + _ONE // 2
    mottle = _mottle(dice, size=size)
    image = _ground(dice, mottle)
    label = np.zeros((size, size), np.uint8)
    owner = np.zeros((size, size), np.int64)
    for number in range(1, dice.between(4, 7) + 1):
        kind = dice.between(1, len(CLASSES) - 1)
        radius = dice.between(size * 2, size * 4)
        u, v = _placed(dice, x, y, size=size)
        depth = _SOLIDS[kind](u, v, radius)
        shadow = _SOLIDS[kind](*_moved(u, v, radius // 6), radius)
        image = image * (256 - np.clip(shadow * 2, 0, 96))[..., None] >> 8
        surface = _TEXTURES[kind](u, v, radius, mottle)
        shade = 176 + np.clip(depth * 320 // radius, 0, 112)
        surface = np.clip(surface * shade[..., None] >> 8, 0, 255)
        cover = np.clip(depth * 256 // _ONE + 128, 0, 256)[..., None]
        image = image * (256 - cover) + surface * cover >> 8
        label[depth > 0] = kind
        owner[depth > 0] = number
    label[_outlines(owner)] = IGNORE_LABEL
    return _photographed(dice, image, x, y), label


def _placed(dice: _Dice, x: Plane, y: Plane, *, size: int) -> tuple[Plane, Plane]:
    """Return coordinates about a random center, turned by a random angle."""
    margin = size * _ONE // 8
    cx, cy = (dice.between(margin, size * _ONE - margin) for _ in range(2))
    sin, cos = _direction(dice.between(0, 63), 64)
    dx, dy = x - cx, y - cy
    return (dx * cos + dy * sin) // _UNIT, (dy * cos - dx * sin) // _UNIT


def _moved(u: Plane, v: Plane, by: int) -> tuple[Plane, Plane]:
    return u - by, v - by


def _direction(step: int, steps: int) -> tuple[int, int]:
    """Return sine and cosine of a fraction of a turn, rounded to 1024ths."""
    angle = 2 * math.pi * step / steps
    return round(_UNIT * math.sin(angle)), round(_UNIT * math.cos(angle))


def _length(u: Plane, v: Plane) -> Plane:
    # The root of an exact integer is correctly rounded everywhere (IEEE 754).
    return np.sqrt((u * u + v * v).astype(np.float64)).astype(np.int64)


# Solids: the depth of each point below the outline, negative outside.


def _ellipse(u: Plane, v: Plane, radius: int) -> Plane:
    return (radius - _length(u, v * 4 // 3)) * 3 // 4


def _disc(u: Plane, v: Plane, radius: int) -> Plane:
    return radius * 7 // 8 - _length(u, v)


def _oblong(u: Plane, v: Plane, radius: int) -> Plane:
    return np.minimum(radius - np.abs(u), radius * 9 // 16 - np.abs(v))


def _square(u: Plane, v: Plane, radius: int) -> Plane:
    return radius * 3 // 4 - np.maximum(np.abs(u), np.abs(v))


def _sides(u: Plane, v: Plane, count: int) -> Int[np.ndarray, "count h w"]:
    turns = (_direction(i, count) for i in range(count))
    return np.stack([(u * cos + v * sin) // _UNIT for sin, cos in turns])


def _triangle(u: Plane, v: Plane, radius: int) -> Plane:
    return radius * 5 // 8 - _sides(u, v, 3).max(axis=0)


def _star(u: Plane, v: Plane, radius: int) -> Plane:
    """A pentagram: the points beyond at most one of its five lines."""
    return radius * 7 // 16 - np.sort(_sides(u, v, 5), axis=0)[-2]


def _ring(u: Plane, v: Plane, radius: int) -> Plane:
    distance = _length(u, v)
    return np.minimum(radius - distance, distance - radius * 7 // 16)


_SOLIDS = (None, _ellipse, _oblong, _disc, _square, _triangle, _star, _ring)


# Textures: the color of each point before light falls on it.


def _two(choice: Bool[np.ndarray, "h w"], first: tuple, second: tuple) -> np.ndarray:
    return np.where(choice[..., None], np.array(first), np.array(second))


def _stony(u: Plane, v: Plane, radius: int, mottle: Plane) -> np.ndarray:
    return np.array((128, 140, 176)) + (mottle - 128)[..., None] // 2


def _bricked(u: Plane, v: Plane, radius: int, mottle: Plane) -> np.ndarray:
    row = v // (6 * _ONE)
    mortar = (v % (6 * _ONE) < 20) | ((u + row % 2 * 6 * _ONE) % (12 * _ONE) < 20)
    return _two(mortar, (216, 196, 176), (196, 70, 44)) + (mottle - 128)[..., None] // 6


def _striped(u: Plane, v: Plane, radius: int, mottle: Plane) -> np.ndarray:
    wave = (u + u * v // (radius * 2) + mottle // 4) % (9 * _ONE)
    return _two(wave < 4 * _ONE, (24, 112, 52), (120, 208, 92))


def _tiled(u: Plane, v: Plane, radius: int, mottle: Plane) -> np.ndarray:
    step = 7 * _ONE
    return _two((u // step + v // step) % 2 == 0, (44, 84, 208), (212, 226, 250))


def _banded(u: Plane, v: Plane, radius: int, mottle: Plane) -> np.ndarray:
    return _two(
        (u - radius) % (radius * 2 // 3) < radius // 4, (250, 244, 232), (255, 138, 20)
    )


def _rippled(u: Plane, v: Plane, radius: int, mottle: Plane) -> np.ndarray:
    ripple = np.abs(_length(u, v) % (6 * _ONE) - 3 * _ONE)
    return np.array((176, 30, 130)) + ripple[..., None] * np.array((3, 4, 4)) // 3


def _dotted(u: Plane, v: Plane, radius: int, mottle: Plane) -> np.ndarray:
    step = 6 * _ONE
    dot = _length(u % step - step // 2, v % step - step // 2) < step * 5 // 16
    return _two(dot, (90, 56, 20), (250, 222, 40))


_TEXTURES = (
    None, _stony, _bricked, _striped, _tiled, _banded, _rippled, _dotted
)  # fmt: skip


def _mottle(dice: _Dice, *, size: int) -> Plane:
    """Return smooth noise of three octaves, 0 to 255."""
    total = np.zeros((size, size), np.int64)
    for octave, weight in ((32, 4), (16, 2), (4, 2)):
        cells = size // octave + 2
        lattice = dice.plane(256, shape=(cells, cells))
        cell, part = np.divmod(np.arange(size), octave)
        rows = (
            lattice[cell] * (octave - part)[:, None] + lattice[cell + 1] * part[:, None]
        )
        total += (
            weight
            * (rows[:, cell] * (octave - part) + rows[:, cell + 1] * part)
            // octave**2
        )
    return total // 8


def _ground(dice: _Dice, mottle: Plane) -> np.ndarray:
    """Return earth that turns to grass where the noise is high."""
    earth, grass = np.array((122, 100, 74)), np.array((104, 128, 70))
    part = np.clip((mottle - 96) * 4, 0, 256)[..., None]
    base = earth * (256 - part) + grass * part >> 8
    grain = dice.plane(40, shape=mottle.shape) - 20
    return base + (grain + (mottle - 128) // 3)[..., None]


def _outlines(owner: Plane) -> Bool[np.ndarray, "h w"]:
    """Return the pixels within one of a border between two owners."""
    padded = np.pad(owner, 1, mode="edge")
    size = owner.shape[0]
    around = np.stack(
        [padded[i : i + size, j : j + size] for i in range(3) for j in range(3)]
    )
    return around.max(axis=0) != around.min(axis=0)


def _photographed(
    dice: _Dice, image: np.ndarray, x: Plane, y: Plane
) -> UInt8[np.ndarray, "h w 3"]:
    """Light the scene from one side and add the camera's noise."""
    sin, cos = _direction(dice.between(0, 63), 64)
    size = image.shape[0] * _ONE
    slope = ((x - size // 2) * cos + (y - size // 2) * sin) // _UNIT
    light = dice.between(216, 288) + slope * dice.between(32, 128) // size
    noise = dice.plane(21, shape=image.shape) + dice.plane(21, shape=image.shape) - 20
    return np.clip((image * light[..., None] >> 8) + noise, 0, 255).astype(np.uint8)
