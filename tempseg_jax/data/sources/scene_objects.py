"""Shapes and textures of the objects in generated scenes, in integer arithmetic."""

import math

import numpy as np
from jaxtyping import Bool, Int

ONE = 16  # lengths are in sixteenths of a pixel
UNIT = 1024  # sines and cosines are in 1024ths

Plane = Int[np.ndarray, "h w"]


def direction(step: int, steps: int) -> tuple[int, int]:
    """Return sine and cosine of step / steps of a full turn, in 1024ths, rounded."""
    angle = 2 * math.pi * step / steps
    return round(UNIT * math.sin(angle)), round(UNIT * math.cos(angle))


def _length(u: Plane, v: Plane) -> Plane:
    # IEEE 754 demands a correctly rounded root, so it is the same on every machine.
    return np.sqrt((u * u + v * v).astype(np.float64)).astype(np.int32)


# Shapes: the distance of each point from the outline in sixteenths of a pixel, negative
# outside. `u` and `v` are coordinates relative to the center of the object.


def _ellipse(u: Plane, v: Plane, radius: int) -> Plane:
    return (radius - _length(u, v * 4 // 3)) * 3 // 4


def _disc(u: Plane, v: Plane, radius: int) -> Plane:
    return radius * 7 // 8 - _length(u, v)


def _oblong(u: Plane, v: Plane, radius: int) -> Plane:
    return np.minimum(radius - np.abs(u), radius * 9 // 16 - np.abs(v))


def _square(u: Plane, v: Plane, radius: int) -> Plane:
    return radius * 3 // 4 - np.maximum(np.abs(u), np.abs(v))


def _sides(u: Plane, v: Plane, count: int) -> Int[np.ndarray, "count h w"]:
    turns = (direction(i, count) for i in range(count))
    return np.stack([(u * cos + v * sin) // UNIT for sin, cos in turns])


def _triangle(u: Plane, v: Plane, radius: int) -> Plane:
    return radius * 5 // 8 - _sides(u, v, 3).max(axis=0)


def _star(u: Plane, v: Plane, radius: int) -> Plane:
    """Return a pentagram: the points outside at most one of its five lines."""
    return radius * 7 // 16 - np.sort(_sides(u, v, 5), axis=0)[-2]


def _ring(u: Plane, v: Plane, radius: int) -> Plane:
    distance = _length(u, v)
    return np.minimum(radius - distance, distance - radius * 7 // 16)


SHAPES = (None, _ellipse, _oblong, _disc, _square, _triangle, _star, _ring)


# Textures: the RGB color of each point before lighting.


def _two(choice: Bool[np.ndarray, "h w"], first: tuple, second: tuple) -> np.ndarray:
    return np.where(choice[..., None], np.int32(first), np.int32(second))


def _stony(u: Plane, v: Plane, radius: int, noise: Plane) -> np.ndarray:
    return np.int32((128, 140, 176)) + (noise - 128)[..., None] // 2


def _bricked(u: Plane, v: Plane, radius: int, noise: Plane) -> np.ndarray:
    row = v // (6 * ONE)
    mortar = (v % (6 * ONE) < 20) | ((u + row % 2 * 6 * ONE) % (12 * ONE) < 20)
    return _two(mortar, (216, 196, 176), (196, 70, 44)) + (noise - 128)[..., None] // 6


def _striped(u: Plane, v: Plane, radius: int, noise: Plane) -> np.ndarray:
    wave = (u + u * v // (radius * 2) + noise // 4) % (9 * ONE)
    return _two(wave < 4 * ONE, (24, 112, 52), (120, 208, 92))


def _tiled(u: Plane, v: Plane, radius: int, noise: Plane) -> np.ndarray:
    step = 7 * ONE
    return _two((u // step + v // step) % 2 == 0, (44, 84, 208), (212, 226, 250))


def _banded(u: Plane, v: Plane, radius: int, noise: Plane) -> np.ndarray:
    return _two(
        (u - radius) % (radius * 2 // 3) < radius // 4, (250, 244, 232), (255, 138, 20)
    )


def _rippled(u: Plane, v: Plane, radius: int, noise: Plane) -> np.ndarray:
    ripple = np.abs(_length(u, v) % (6 * ONE) - 3 * ONE)
    return np.int32((176, 30, 130)) + ripple[..., None] * np.int32((3, 4, 4)) // 3


def _dotted(u: Plane, v: Plane, radius: int, noise: Plane) -> np.ndarray:
    step = 6 * ONE
    dot = _length(u % step - step // 2, v % step - step // 2) < step * 5 // 16
    return _two(dot, (90, 56, 20), (250, 222, 40))


TEXTURES = (
    None, _stony, _bricked, _striped, _tiled, _banded, _rippled, _dotted
)  # fmt: skip
"""By class; class 0, the ground, is not an object."""
