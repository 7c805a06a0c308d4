"""The canvas of an image: one padded shape for many sizes, for few compilations.

A convolutional network's result depends on how far an image is padded, so evaluation,
prediction and exported programs use the same canvas, which depends on the image's size
only.
"""

from typing import Any

Shape = tuple[int, int]  # height and width in pixels

WAITING = 8
"""Batches of images that may wait in memory for others of their canvas."""

_STEP = 128  # pixels


def canvas(size: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return the sides rounded up to multiples of 128 pixels.

    Args:
        size: Height and width: ints, or symbolic dimensions of `jax.export`.
    """
    height, width = size
    return -(-height // _STEP) * _STEP, -(-width // _STEP) * _STEP
