"""Pad images of many sizes to few shapes, so that XLA compiles few programs."""

import itertools
from collections.abc import Mapping
from typing import Any

Shape = tuple[int, int]  # height and width in pixels

_STEP = 128  # pixels
_MAX_SHAPES = 4


def plan(sizes: Mapping[Shape, int]) -> list[Shape]:
    """Return at most four shapes that hold images of these sizes, smallest first.

    Sides are rounded up to a multiple of 128. While there are more than four shapes,
    the pair is merged whose union adds the fewest padding pixels over all images.

    Args:
        sizes: Number of images of each (height, width).
    """
    counts: dict[Shape, int] = {}
    for size, count in sizes.items():
        shape = rounded(size)
        counts[shape] = counts.get(shape, 0) + count
    while len(counts) > _MAX_SHAPES:
        pairs = itertools.combinations(sorted(counts), 2)
        first, second = min(pairs, key=lambda pair: _cost(pair, counts))
        count = counts.pop(first) + counts.pop(second)
        union = _union(first, second)
        counts[union] = counts.get(union, 0) + count
    return sorted(counts, key=lambda shape: (_area(shape), shape))


def choose(size: Shape, shapes: list[Shape]) -> Shape:
    """Return the first of the shapes that holds an image of this size.

    If none does, because its size was not known to `plan`, return its rounded size.
    """
    height, width = size
    fits = (s for s in shapes if s[0] >= height and s[1] >= width)
    return next(fits, rounded(size))


def up_to_bucket(side: Any) -> Any:
    """Round a side up to a multiple of 128 pixels.

    Args:
        side: An int, or a symbolic dimension of `jax.export`.
    """
    return -(-side // _STEP) * _STEP


def rounded(size: Shape) -> Shape:
    """Return the sides rounded up to a multiple of 128."""
    height, width = map(up_to_bucket, size)
    return height, width


def _cost(pair: tuple[Shape, Shape], counts: Mapping[Shape, int]) -> int:
    union = _union(*pair)
    return sum(counts[shape] * (_area(union) - _area(shape)) for shape in pair)


def _union(first: Shape, second: Shape) -> Shape:
    return max(first[0], second[0]), max(first[1], second[1])


def _area(shape: Shape) -> int:
    return shape[0] * shape[1]
