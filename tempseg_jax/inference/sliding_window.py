"""An image to class probabilities: whole or in windows, at several scales, mirrored.

A window is treated as an image of its own: it is resized, mirrored, run, and brought
back to its native resolution; then windows are averaged where they overlap. So one
compiled shape does for every window of every image, and what is held at a time is one
band of rows, never a whole photograph's probabilities.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from tempseg_jax.data.transforms import PAD_COLOR
from tempseg_jax.steps import predict

LARGEST_WHOLE = 2048 * 1024
"""Pixels of the largest image that is not cut into windows unless told to."""

BUCKET = 128  # pixels; sides are padded to multiples, so that few shapes are compiled
_LARGE_WINDOW, _LARGE_STRIDE = 1024, 768  # pixels; what larger images get unasked
_PIXELS_AT_ONCE = 1024 * 1024  # of windows in one call


@dataclasses.dataclass(frozen=True)
class InferenceSettings:
    """How an image is looked at before the probabilities are averaged.

    Raises:
        ValueError: a value that cannot be.
    """

    window: int | None  # pixels a side; None: the whole image, unless it is large
    stride: int | None  # pixels between windows; None: two thirds of the window
    scales: tuple[float, ...]  # (1,) is the network's plain output
    flip: bool  # also mirrored

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 32:
            raise ValueError(
                f"window: {self.window} pixels is less than the networks' stride of "
                "32; choose a larger one"
            )
        if self.stride is not None and self.window is None:
            raise ValueError(f"stride: {self.stride}, but no window is set; set both")
        if self.stride is not None and not 0 < self.stride <= self.window:
            raise ValueError(
                f"stride: {self.stride} leaves gaps between windows of {self.window} "
                "pixels; choose 1 to the window's size"
            )
        if not self.scales or not all(0 < scale <= 8 for scale in self.scales):
            raise ValueError(
                f"scales: {self.scales} are not factors above 0 and up to 8"
            )

    def windows(self, height: int, width: int) -> tuple[int, int] | None:
        """Return (window, stride) in pixels for an image, None if it is run whole."""
        if self.window is not None:
            return self.window, self.stride or max(1, self.window * 2 // 3)
        if height * width > LARGEST_WHOLE:
            return _LARGE_WINDOW, _LARGE_STRIDE
        return None


WHOLE_IMAGE = InferenceSettings(window=None, stride=None, scales=(1.0,), flip=False)
"""The evaluation of training, and of the paper."""


def parse_scales(words: list[str]) -> tuple[float, ...]:
    """Return the scales of a command line.

    Raises:
        ValueError: a word that is no number.
    """
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise ValueError(
            f"scales: {words} are not numbers, as in 0.75,1,1.25"
        ) from None


def log_probabilities(
    variables: PyTree,
    image: UInt8[Array, "b h w 3"],
    *,
    segmenter: nn.Module,
    scales: tuple[float, ...],
    flip: bool,
) -> Float[Array, "b h w k"]:
    """Return the log of the mean of softmax(logits) over scales and mirror images.

    A temperature T is applied to this mean: softmax(log p / T). For one view that is
    softmax(logits / T), and T never changes the argmax.
    """
    b, h, w = image.shape[:3]
    total, members = None, 0
    for scale in scales:
        view = image if scale == 1 else _resized(image, scale)
        for mirrored in (False, True)[: 1 + flip]:
            logits = predict(
                variables, view[:, :, ::-1] if mirrored else view, segmenter=segmenter
            )
            logits = logits[:, :, ::-1] if mirrored else logits
            if scale != 1:
                shape = (b, h, w, logits.shape[-1])
                logits = jax.image.resize(logits, shape, method="bilinear")
            log_p = jax.nn.log_softmax(logits)
            total = log_p if total is None else jnp.logaddexp(total, log_p)
            members += 1
    return total if members == 1 else total - jnp.log(members)


def padded(
    image: UInt8[np.ndarray, "h w 3"], *, height: int, width: int
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Fill up with the mean color at the bottom and the right."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = PAD_COLOR
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def up_to_bucket(length: Any) -> Any:
    """Round a side (in `export`, a symbol) up to a shape that is compiled anyway."""
    return -(-length // BUCKET) * BUCKET


def bands(
    image: UInt8[np.ndarray, "h w 3"],
    forward: Callable[[np.ndarray], Array],
    *,
    window: int,
    stride: int,
    devices: int,
) -> Iterator[tuple[int, Float[np.ndarray, "rows w k"]]]:
    """Yield (top row, mean probabilities) from top to bottom, at most a window high.

    Args:
        image: of any size; filled up where it is smaller than a window.
        forward: a batch of windows to their probabilities, on the device.
        window: pixels a side.
        stride: pixels between windows; the last one ends with the image.
        devices: that share a batch of windows.
    """
    h, w = image.shape[:2]
    canvas = padded(image, height=max(h, window), width=max(w, window))
    tops, lefts = (_starts(n, window, stride) for n in canvas.shape[:2])
    covering_row, covering_column = (
        _coverage(starts, n, window)
        for starts, n in zip((tops, lefts), canvas.shape[:2], strict=True)
    )
    most = devices * max(1, _PIXELS_AT_ONCE // window**2)
    batch = -(-min(len(lefts), most) // devices) * devices
    total = None
    for top, below in zip(tops, [*tops[1:], canvas.shape[0]], strict=True):
        for left, p in _probabilities(
            canvas[top : top + window], lefts, forward, window=window, batch=batch
        ):
            if total is None:
                total = np.zeros((window, canvas.shape[1], p.shape[-1]), np.float32)
            total[:, left : left + window] += p
        # No later window reaches above `below`.
        done = min(below, h) - top
        covering = covering_row[top : top + done, None] * covering_column[:w]
        yield top, total[:done, :w] / covering[..., None]
        total[: window - (below - top)] = total[below - top :].copy()
        total[window - (below - top) :] = 0


def _probabilities(
    strip: UInt8[np.ndarray, "h w 3"],
    lefts: list[int],
    forward: Callable[[np.ndarray], Array],
    *,
    window: int,
    batch: int,
) -> Iterator[tuple[int, Float[np.ndarray, "window window k"]]]:
    """Yield each window's left edge and probabilities, the device one batch ahead."""
    pending = None
    for i in range(0, len(lefts), batch):
        some = lefts[i : i + batch]
        crops = np.zeros((batch, window, window, 3), np.uint8)
        for crop, left in zip(crops, some, strict=False):
            crop[:] = strip[:, left : left + window]
        running = (some, forward(crops))
        if pending is not None:
            yield from zip(pending[0], np.asarray(pending[1]), strict=False)
        pending = running
    yield from zip(pending[0], np.asarray(pending[1]), strict=False)


def _starts(length: int, window: int, stride: int) -> list[int]:
    last = length - window
    return [*range(0, last, stride), last]


def _coverage(starts: list[int], length: int, window: int) -> Float[np.ndarray, "n"]:
    """Return how many windows cover each row, or each column."""
    count = np.zeros(length, np.float32)
    for start in starts:
        count[start : start + window] += 1
    return count


def _resized(image: UInt8[Array, "b h w 3"], scale: float) -> UInt8[Array, "b _ _ 3"]:
    b, h, w, c = image.shape
    shape = (b, max(1, round(h * scale)), max(1, round(w * scale)), c)
    values = jax.image.resize(image.astype(jnp.float32), shape, method="bilinear")
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)
