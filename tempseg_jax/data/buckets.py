"""The canvas of an image: one padded shape for many sizes, for few compilations.

A convolutional network's result depends on how far an image is padded, so evaluation,
prediction and exported programs use the same canvas, which depends on the image's size
only.
"""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data.transforms import PAD_COLOR

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


def padded(
    image: UInt8[np.ndarray, "h w 3"], *, height: int, width: int
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Pad the image at the bottom and the right with the mean color."""
    result = np.empty((height, width, 3), np.uint8)
    result[:] = PAD_COLOR
    result[: image.shape[0], : image.shape[1]] = image
    return result
