"""Average overlapping windows on the device, one band of rows at a time.

The network runs on windows of one shape, so one program serves images of all sizes. Its
results are added up on the device, in the log domain, so that no probability underflows
and the result of a pixel in a single window is that of the network. Results of at
most one band of rows are in memory, never those of the whole image. The small programs
around the network are compiled for each canvas (`buckets.canvas`), not for each image
size: where the windows lie is an argument.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Int32, Shaped, UInt8

_PIXELS_PER_BATCH = 1024 * 1024  # of windows, for each device


class Band(NamedTuple):
    """Rows of some images, one image for each device."""

    tops: Int32[np.ndarray, "b"]  # first row of the band in each image
    rows: Int32[np.ndarray, "b"]  # complete rows; 0 for an image without more rows
    logits: Float[Array, "b window w k"]  # log p plus a constant of each pixel


def bands(
    images: UInt8[Array, "b h w 3"],
    sizes: Int[np.ndarray, "b 2"],
    forward: Callable[[Array], Array],
    *,
    window: int,
    stride: int,
    devices: Mesh,
) -> Iterator[Band]:
    """Yield bands of rows, from top to bottom; together they cover each row once.

    Nothing here waits for the device.

    Args:
        images: One padded image for each device, sharded over them. Their height and
            width are at least the window's.
        sizes: Height and width of each image without its padding, in pixels. An image
            of size 0 has no windows.
        forward: Computes log p of a batch of windows.
        window: Side of a window in pixels.
        stride: Pixels between windows; the last window ends at the image's border.
        devices: Mesh with one axis, `data`.
    """
    heights, widths = sizes.T.tolist()
    tops = [_window_starts(height, window, stride) for height in heights]
    lefts = [_window_starts(width, window, stride) for width in widths]
    most_down, most_across = max(map(len, tops)), max(map(len, lefts))
    batch = _windows_per_batch(images.shape[2], window, stride)
    sums = None
    for row in range(most_down):  # of windows
        top = _at(tops, [row])[0][:, 0]
        for first in range(0, most_across, batch):
            left, inside = _at(lefts, range(first, first + batch))
            inside &= np.array([[row < len(starts)] for starts in tops])
            crops = _crops(images, top, left, window=window, devices=devices)
            log_p = forward(crops)
            if sums is None:
                sums = _no_windows(log_p, width=images.shape[2], devices=devices)
            sums = _add(sums, log_p, left, inside, devices=devices)
        complete = np.array(
            [_complete_rows(starts, row, window) for starts in tops], np.int32
        )
        yield Band(top, complete, sums)
        if row + 1 < most_down:
            sums = _moved_up(sums, complete, devices=devices)


def at_least_a_window(
    canvas: UInt8[np.ndarray, "b h w *c"], window: int, value: int | tuple[int, ...]
) -> UInt8[np.ndarray, "b _ _ *c"]:
    """Pad a canvas at the bottom and the right if it is smaller than a window."""
    b, h, w, *channels = canvas.shape
    if min(h, w) >= window:
        return canvas
    larger = np.empty((b, max(h, window), max(w, window), *channels), np.uint8)
    larger[:] = value
    larger[:, :h, :w] = canvas
    return larger


@partial(jax.jit, static_argnames=("window", "devices"))
def rows_at(
    canvas: Shaped[Array, "b h *c"],
    tops: Int32[Array, "b"] | Int32[np.ndarray, "b"],
    *,
    window: int,
    devices: Mesh,
) -> Shaped[Array, "b window *c"]:
    """Return the rows of a band, from arrays of the images' canvas."""

    def cut(canvas: Array, tops: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(canvas, tops[0], window, axis=1)

    return _on_each(cut, devices)(canvas, tops)


def paste(
    canvas: Shaped[Array, "b h w"],
    rows: Shaped[Array, "b window w"],
    band: Band,
    *,
    devices: Mesh,
) -> Shaped[Array, "b h w"]:
    """Return the canvas with the rows of a band; `canvas` itself is deleted.

    The rows that are not complete are replaced by those of the next band.
    """
    return _paste(canvas, rows, band.tops, band.rows > 0, devices=devices)


def _window_starts(length: int, window: int, stride: int) -> list[int]:
    if not length:
        return []
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def _windows_per_batch(width: int, window: int, stride: int) -> int:
    """Return how many windows of a row run at once, in batches of about one size."""
    across = len(_window_starts(width, window, stride))
    largest = max(1, _PIXELS_PER_BATCH // window**2)
    batches = math.ceil(across / largest)
    return math.ceil(across / batches)


def _complete_rows(tops: list[int], row: int, window: int) -> int:
    """Return the number of rows that no window below this row of windows covers."""
    if row + 1 < len(tops):
        return tops[row + 1] - tops[row]
    return window if row + 1 == len(tops) else 0


def _at(
    starts: list[list[int]], indices: range | list[int]
) -> tuple[Int32[np.ndarray, "b n"], Bool[np.ndarray, "b n"]]:
    """Return each image's starts at the indices, and whether it has so many."""
    inside = np.array([[i < len(s) for i in indices] for s in starts])
    at = [[s[min(i, len(s) - 1)] if s else 0 for i in indices] for s in starts]
    return np.array(at, np.int32), inside


def _on_each(function: Callable[..., Array], devices: Mesh) -> Callable[..., Array]:
    """Apply a function to each device's part of its arguments."""
    split = PartitionSpec("data")
    return jax.shard_map(function, mesh=devices, in_specs=split, out_specs=split)


@partial(jax.jit, static_argnames=("window", "devices"))
def _crops(
    images: UInt8[Array, "b h w 3"],
    tops: Int32[Array, "b"],
    lefts: Int32[Array, "b n"],
    *,
    window: int,
    devices: Mesh,
) -> UInt8[Array, "_ window window 3"]:
    """Return the windows of all images, those of one image after another."""

    def crop(image: Array, tops: Array, lefts: Array) -> Array:
        shape = (1, window, window, 3)
        parts = [
            jax.lax.dynamic_slice(image, (0, tops[0], left, 0), shape)
            for left in lefts[0]
        ]
        return jnp.concatenate(parts)

    return _on_each(crop, devices)(images, tops, lefts)


@partial(jax.jit, static_argnames=("width", "devices"))
def _no_windows(
    log_p: Float[Array, "_ window window k"], *, width: int, devices: Mesh
) -> Float[Array, "b window width k"]:
    def empty(log_p: Array) -> Array:
        _, window, _, k = log_p.shape
        return jnp.full((1, window, width, k), -jnp.inf)

    return _on_each(empty, devices)(log_p)


@partial(jax.jit, static_argnames="devices", donate_argnames="sums")
def _add(
    sums: Float[Array, "b window w k"],
    log_p: Float[Array, "_ window window k"],
    lefts: Int32[Array, "b n"],
    inside: Bool[Array, "b n"],
    *,
    devices: Mesh,
) -> Float[Array, "b window w k"]:
    """Add the probabilities of n windows of each image to the sums, as logarithms."""

    def add(sums: Array, log_p: Array, lefts: Array, inside: Array) -> Array:
        for i in range(len(log_p)):
            corner = (0, 0, lefts[0, i], 0)
            new = jnp.where(inside[0, i], log_p[i : i + 1], -jnp.inf)
            old = jax.lax.dynamic_slice(sums, corner, new.shape)
            sums = jax.lax.dynamic_update_slice(sums, jnp.logaddexp(old, new), corner)
        return sums

    return _on_each(add, devices)(sums, log_p, lefts, inside)


@partial(jax.jit, static_argnames="devices")
def _moved_up(
    sums: Float[Array, "b window w k"], rows: Int32[Array, "b"], *, devices: Mesh
) -> Float[Array, "b window w k"]:
    """Remove the complete rows, and add as many rows without windows at the bottom."""

    def move(sums: Array, rows: Array) -> Array:
        longer = jnp.concatenate([sums, jnp.full_like(sums, -jnp.inf)], axis=1)
        return jax.lax.dynamic_slice_in_dim(longer, rows[0], sums.shape[1], axis=1)

    return _on_each(move, devices)(sums, rows)


@partial(jax.jit, static_argnames="devices", donate_argnames="canvas")
def _paste(
    canvas: Shaped[Array, "b h w"],
    rows: Shaped[Array, "b window w"],
    tops: Int32[Array, "b"],
    inside: Bool[Array, "b"],
    *,
    devices: Mesh,
) -> Shaped[Array, "b h w"]:
    def write(canvas: Array, rows: Array, tops: Array, inside: Array) -> Array:
        pasted = jax.lax.dynamic_update_slice(canvas, rows, (0, tops[0], 0))
        return jnp.where(inside[0], pasted, canvas)

    return _on_each(write, devices)(canvas, rows, tops, inside)
