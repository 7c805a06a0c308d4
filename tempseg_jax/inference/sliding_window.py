"""Sliding-window inference and test-time augmentation (multi-scale and flipping).

Test-time augmentation is applied to each window as if it were an image of its own: the
window is resized and flipped, the network runs on each version, and the results are
brought back to the window's size and averaged. Then windows are averaged where they
overlap. Therefore all windows of all images share one compiled program, and at most one
band of rows of probabilities is in memory, never those of the whole image.
"""

import dataclasses
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from tempseg_jax.data.buckets import up_to_bucket as up_to_bucket  # part of the API
from tempseg_jax.data.transforms import PAD_COLOR
from tempseg_jax.steps import predict

LARGEST_WHOLE = 2048 * 1024
"""Pixels of the largest image that runs whole if no window size is given."""

# Pixels: the window size and stride of larger images if no window size is given.
_DEFAULT_WINDOW, _DEFAULT_STRIDE = 1024, 768
_PIXELS_PER_BATCH = 1024 * 1024  # of windows, for each device


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

        None means that the image runs whole.
        """
        if self.window is not None:
            return self.window, self.stride or max(1, self.window * 2 // 3)
        if height * width > LARGEST_WHOLE:
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


def log_probabilities(
    variables: PyTree,
    image: UInt8[Array, "b h w 3"],
    *,
    segmenter: nn.Module,
    scales: tuple[float, ...],
    flip: bool,
) -> Float[Array, "b h w k"]:
    """Return log p, where p is the mean of softmax(logits) over scales and flips.

    A temperature T is applied to this mean: softmax(log p / T). With one scale and no
    flip this equals softmax(logits / T). T never changes the argmax.
    """
    b, h, w = image.shape[:3]
    log_sum, count = None, 0
    for scale in scales:
        scaled = image if scale == 1 else _resized(image, scale)
        for mirrored in (False, True)[: 1 + flip]:
            augmented = scaled[:, :, ::-1] if mirrored else scaled
            logits = predict(variables, augmented, segmenter=segmenter)
            logits = logits[:, :, ::-1] if mirrored else logits
            if scale != 1:
                shape = (b, h, w, logits.shape[-1])
                logits = jax.image.resize(logits, shape, method="bilinear")
            log_p = jax.nn.log_softmax(logits)
            log_sum = log_p if log_sum is None else jnp.logaddexp(log_sum, log_p)
            count += 1
    return log_sum if count == 1 else log_sum - jnp.log(count)


def padded(
    image: UInt8[np.ndarray, "h w 3"], *, height: int, width: int
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Pad the image at the bottom and the right with the mean color."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = PAD_COLOR
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def bands(
    image: UInt8[np.ndarray, "h w 3"],
    forward: Callable[[np.ndarray], Array],
    *,
    window: int,
    stride: int,
    devices: int,
) -> Iterator[tuple[int, Float[np.ndarray, "rows w k"]]]:
    """Yield bands of rows, from top to bottom: (first row, mean probabilities).

    A band is at most one window high; together the bands cover each row once.

    Args:
        image: An image of any size; it is padded if it is smaller than a window.
        forward: Computes the probabilities of a batch of windows, on the device.
        window: Side of a window in pixels.
        stride: Pixels between windows; the last window ends at the image's border.
        devices: Number of devices that share a batch of windows.
    """
    h, w = image.shape[:2]
    canvas = padded(image, height=max(h, window), width=max(w, window))
    tops, lefts = (_window_starts(n, window, stride) for n in canvas.shape[:2])
    windows_per_row, windows_per_column = (
        _windows_per_position(starts, n, window)
        for starts, n in zip((tops, lefts), canvas.shape[:2], strict=True)
    )
    largest_batch = devices * max(1, _PIXELS_PER_BATCH // window**2)
    batch = -(-min(len(lefts), largest_batch) // devices) * devices
    sums = None
    for top, next_top in zip(tops, [*tops[1:], canvas.shape[0]], strict=True):
        for left, p in _window_probabilities(
            canvas[top : top + window], lefts, forward, window=window, batch=batch
        ):
            if sums is None:
                sums = np.zeros((window, canvas.shape[1], p.shape[-1]), np.float32)
            sums[:, left : left + window] += p
        # The rows above the next window's top are complete.
        rows = min(next_top, h) - top
        counts = windows_per_row[top : top + rows, None] * windows_per_column[:w]
        yield top, sums[:rows, :w] / counts[..., None]
        sums[: window - (next_top - top)] = sums[next_top - top :].copy()
        sums[window - (next_top - top) :] = 0


def _window_probabilities(
    strip: UInt8[np.ndarray, "h w 3"],
    lefts: list[int],
    forward: Callable[[np.ndarray], Array],
    *,
    window: int,
    batch: int,
) -> Iterator[tuple[int, Float[np.ndarray, "window window k"]]]:
    """Yield each window's left edge and probabilities.

    The device computes the next batch while the caller adds up the last one.
    """
    pending = None
    for i in range(0, len(lefts), batch):
        batch_lefts = lefts[i : i + batch]
        crops = np.zeros((batch, window, window, 3), np.uint8)
        for crop, left in zip(crops, batch_lefts, strict=False):
            crop[:] = strip[:, left : left + window]
        running = (batch_lefts, forward(crops))
        if pending is not None:
            yield from zip(pending[0], np.asarray(pending[1]), strict=False)
        pending = running
    yield from zip(pending[0], np.asarray(pending[1]), strict=False)


def _window_starts(length: int, window: int, stride: int) -> list[int]:
    last = length - window
    return [*range(0, last, stride), last]


def _windows_per_position(
    starts: list[int], length: int, window: int
) -> Float[np.ndarray, "n"]:
    """Return the number of windows that cover each row, or each column."""
    count = np.zeros(length, np.float32)
    for start in starts:
        count[start : start + window] += 1
    return count


def _resized(image: UInt8[Array, "b h w 3"], scale: float) -> UInt8[Array, "b _ _ 3"]:
    b, h, w, c = image.shape
    shape = (b, max(1, round(h * scale)), max(1, round(w * scale)), c)
    values = jax.image.resize(image.astype(jnp.float32), shape, method="bilinear")
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)
