"""Settings of sliding-window inference, and test-time augmentation (scales, flipping).

Test-time augmentation is applied to each window as if it were an image of its own: the
window is resized and flipped, the network runs on each version, and the results are
brought back to the window's size and averaged. Then windows are averaged where they
overlap (`window_sums`).
"""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from tempseg_jax.data.buckets import canvas
from tempseg_jax.data.transforms import PAD_COLOR
from tempseg_jax.steps import predict

LARGEST_WHOLE = 2048 * 1024
"""Pixels of the largest canvas that runs whole if no window size is given."""

# Pixels: the window size and stride of larger images if no window size is given.
_DEFAULT_WINDOW, _DEFAULT_STRIDE = 1024, 768


@dataclasses.dataclass(frozen=True)
class InferenceSettings:
    """Settings of sliding-window inference and of test-time augmentation.

    Raises:
        ValueError: If a value is out of range.
    """

    window: int | None  # side in pixels; None: whole images, unless they are large
    stride: int | None  # pixels between windows; None: two thirds of the window
    scales: tuple[float, ...]  # of test-time augmentation; (1,) resizes nothing
    flip: bool  # test-time augmentation: also average over the mirror image

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 32:
            raise ValueError(
                f"window: {self.window} pixels is less than the networks' stride of "
                "32; choose a larger window"
            )
        if self.stride is not None and self.window is None:
            raise ValueError(
                f"stride: {self.stride} is given without a window size; give both"
            )
        if self.stride is not None and not 0 < self.stride <= self.window:
            raise ValueError(
                f"stride: {self.stride} must be from 1 to the window size, "
                f"{self.window}; a larger stride leaves gaps between the windows"
            )
        if not self.scales or not all(0 < scale <= 8 for scale in self.scales):
            raise ValueError(
                f"scales: {self.scales} must be one or more factors above 0 and at "
                "most 8"
            )

    def windows(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the window size and stride for an image of this size, in pixels.

        None means that the image runs whole. All images of one canvas have the same.
        """
        if self.window is not None:
            return self.window, self.stride or max(1, self.window * 2 // 3)
        canvas_height, canvas_width = canvas((height, width))
        if canvas_height * canvas_width > LARGEST_WHOLE:
            return _DEFAULT_WINDOW, _DEFAULT_STRIDE
        return None


WHOLE_IMAGE = InferenceSettings(window=None, stride=None, scales=(1.0,), flip=False)
"""No test-time augmentation, as in the paper and in the evaluation during training."""


def parse_scales(words: list[str]) -> tuple[float, ...]:
    """Return the scales given on a command line.

    Raises:
        ValueError: If a word is not a number.
    """
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise ValueError(
            f"scales: {','.join(words)!r} is not a list of numbers such as 0.75,1,1.25"
        ) from None


def mean_logits(
    variables: PyTree,
    image: UInt8[Array, "b h w 3"],
    *,
    segmenter: nn.Module,
    scales: tuple[float, ...],
    flip: bool,
) -> Float[Array, "b h w k"]:
    """Return log p plus a constant of each pixel, where p is the mean of softmax(z).

    z are the logits, and the mean is over scales and flips. With one scale and no flip
    the result is z itself. Labels, and the probabilities at a temperature T,
    softmax(log p / T), do not depend on the constant. T never changes the argmax.
    """
    b, h, w = image.shape[:3]
    log_sum = None
    for scale in scales:
        scaled = image if scale == 1 else _resized(image, scale)
        for mirrored in (False, True)[: 1 + flip]:
            augmented = scaled[:, :, ::-1] if mirrored else scaled
            logits = predict(variables, augmented, segmenter=segmenter)
            logits = logits[:, :, ::-1] if mirrored else logits
            if scale != 1:
                shape = (b, h, w, logits.shape[-1])
                logits = jax.image.resize(logits, shape, method="bilinear")
            if len(scales) == 1 and not flip:
                return logits
            log_p = jax.nn.log_softmax(logits)
            log_sum = log_p if log_sum is None else jnp.logaddexp(log_sum, log_p)
    return log_sum


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def log_probabilities(
    variables: PyTree, image: UInt8[Array, "b h w 3"], **network: Any
) -> Float[Array, "b h w k"]:
    """Return log p, where p is that of `mean_logits`."""
    return jax.nn.log_softmax(mean_logits(variables, image, **network))


def padded(
    image: UInt8[np.ndarray, "h w 3"], *, height: int, width: int
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Pad the image at the bottom and the right with the mean color."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = PAD_COLOR
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def _resized(image: UInt8[Array, "b h w 3"], scale: float) -> UInt8[Array, "b _ _ 3"]:
    b, h, w, c = image.shape
    shape = (b, max(1, round(h * scale)), max(1, round(w * scale)), c)
    values = jax.image.resize(image.astype(jnp.float32), shape, method="bilinear")
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)
