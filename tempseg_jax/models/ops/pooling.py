"""Pooling; the gradient of max pooling reads the input and contains no scatter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def average_pool_2x2(
    x: Float[Array, "b h w c"], *, stride: int
) -> Float[Array, "b h_out w_out c"]:
    """Average 2x2 windows, for even heights and widths.

    With stride 1, zeros are added at the bottom and at the right, and count (timm's
    `AvgPool2dSame`).
    """
    if stride == 2:
        return _windows(x).mean(axis=(2, 4))
    h, w = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    return sum(x[:, i : i + h, j : j + w] for i, j in np.ndindex(2, 2)) / 4


@jax.custom_vjp
def max_pool_2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out c"]:
    """Max pooling with a 2x2 window and stride 2, for even heights and widths.

    It is a reduction of a reshaped array, whose gradient is elementwise. The gradient
    of XLA's reduce-window (`nn.max_pool`) is a scatter, six times slower on a CPU.
    """
    return _windows(x).max(axis=(2, 4))


def _windows(x: Array) -> Array:
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c)


def _max_pool_2x2_forward(x: Array) -> tuple[Array, Array]:
    return max_pool_2x2(x), x


def _max_pool_2x2_backward(x: Array, g: Array) -> tuple[Array]:
    """Divide the gradient equally among the pixels that have the maximum.

    The maxima and their number are computed again, from x alone and without a division,
    so that XLA computes all of it in one kernel with what follows.
    """
    windows = _windows(x)
    pixels = [windows[:, :, i, :, j] for i, j in np.ndindex(2, 2)]
    y = functools.reduce(jnp.maximum, pixels)
    ties = sum((pixel == y).astype(jnp.int8) for pixel in pixels)
    share = g
    for n in (2, 3, 4):
        share = jnp.where(ties == n, g * jnp.asarray(1 / n, g.dtype), share)
    a, b, c, d = (jnp.where(pixel == y, share, 0) for pixel in pixels)
    rows = [jnp.stack([a, b], axis=3), jnp.stack([c, d], axis=3)]
    return (jnp.stack(rows, axis=2).reshape(x.shape),)


max_pool_2x2.defvjp(_max_pool_2x2_forward, _max_pool_2x2_backward)


@jax.custom_vjp
def max_pool_3x3(x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out c"]:
    """Max pooling with a 3x3 window, stride 2, padding 1, for even heights and widths.

    It takes maxima of shifted slices, first over rows and then over columns.
    """
    return _maxima_3x3(x)


def _maxima_3x3(x: Array) -> Array:
    h, w = x.shape[1:3]
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = jnp.pad(x, border, constant_values=-jnp.inf)
    x = jnp.maximum(jnp.maximum(x[:, 0:h:2], x[:, 1:h:2]), x[:, 2 : h + 2 : 2])
    return jnp.maximum(
        jnp.maximum(x[:, :, 0:w:2], x[:, :, 1:w:2]), x[:, :, 2 : w + 2 : 2]
    )


def _max_pool_3x3_forward(x: Array) -> tuple[Array, Array]:
    return _maxima_3x3(x), x


def _max_pool_3x3_backward(x: Array, g: Array) -> tuple[Array]:
    """Divide the gradient equally among the pixels that have a window's maximum.

    Window i covers the rows 2i - 1, 2i and 2i + 1. Even rows are in one window, odd
    rows in two; the same holds for columns.
    """
    y = _maxima_3x3(x)
    windows = _windows(x)
    pixels = {(i, j): windows[:, :, i, :, j] for i, j in np.ndindex(2, 2)}
    ties = jnp.zeros(y.shape, jnp.int8)
    for i, j in np.ndindex(3, 3):  # the window's pixels; row 0 is 2i - 1
        pixel = _shift(pixels[(i + 1) % 2, (j + 1) % 2], i == 0, j == 0, -jnp.inf)
        ties += pixel == y
    share = g / ties.astype(g.dtype)

    def gradient(i: int, j: int) -> Array:
        """Add the shares of all windows that pixel (i, j) of each 2x2 block is in."""
        total = 0
        for down, right in np.ndindex(i + 1, j + 1):
            maximum = _shift(y, -down, -right, jnp.inf)
            part = _shift(share, -down, -right, 0.0)
            total += jnp.where(pixels[i, j] == maximum, part, 0)
        return total

    rows = [jnp.stack([gradient(i, 0), gradient(i, 1)], axis=3) for i in (0, 1)]
    return (jnp.stack(rows, axis=2).reshape(x.shape),)


def _shift(x: Array, down: int, right: int, fill: float) -> Array:
    """Return x moved by at most one row and column; `fill` comes in at the border."""
    h, w = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
    return x[:, 1 - down : 1 - down + h, 1 - right : 1 - right + w]


max_pool_3x3.defvjp(_max_pool_3x3_forward, _max_pool_3x3_backward)
