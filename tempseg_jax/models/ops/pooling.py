"""Pooling; the gradient of max pooling contains no scatter."""

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
    """Give the gradient to the first pixel that has the maximum, as PyTorch does.

    The position is computed again, from x alone, so that XLA computes all of it in one
    kernel with what follows.
    """
    windows = _windows(x)
    pixels = [windows[:, :, i, :, j] for i, j in np.ndindex(2, 2)]
    _, position = _maximum_and_position(pixels)
    a, b, c, d = (jnp.where(position == n, g, 0) for n in range(4))
    rows = [jnp.stack([a, b], axis=3), jnp.stack([c, d], axis=3)]
    return (jnp.stack(rows, axis=2).reshape(x.shape),)


max_pool_2x2.defvjp(_max_pool_2x2_forward, _max_pool_2x2_backward)


def _maximum_and_position(pixels: list[Array]) -> tuple[Array, Array]:
    """Return the elementwise maximum of arrays, and the index of the first that has it.

    The gradient follows the index, and does not look for the pixels that equal the
    maximum: if XLA computes x twice and rounds it differently, no pixel may equal it.
    """
    y, position = pixels[0], jnp.zeros(pixels[0].shape, jnp.int8)
    for n, pixel in enumerate(pixels[1:], start=1):
        position = jnp.where(pixel > y, jnp.int8(n), position)
        y = jnp.maximum(y, pixel)
    return y, position


@jax.custom_vjp
def max_pool_3x3(x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out c"]:
    """Max pooling with a 3x3 window, stride 2, padding 1, for even heights and widths.

    Its gradient keeps the position of each maximum, in a byte, and contains no scatter.
    """
    return _max_pool_3x3_forward(x)[0]


def _max_pool_3x3_forward(x: Array) -> tuple[Array, Array]:
    h, w = x.shape[1:3]
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = jnp.pad(x, border, constant_values=-jnp.inf)
    pixels = [x[:, i : i + h : 2, j : j + w : 2] for i, j in np.ndindex(3, 3)]
    return _maximum_and_position(pixels)


def _max_pool_3x3_backward(position: Array, g: Array) -> tuple[Array]:
    """Give the gradient to the first pixel that has the maximum, as PyTorch does.

    Window i covers the rows 2i - 1, 2i and 2i + 1. Even rows are in one window, odd
    rows in two; the same holds for columns.
    """

    def gradient(i: int, j: int) -> Array:
        """Add the gradients of the windows that pixel (i, j) of each 2x2 block is in.

        It is at row i + 1 of the block's own window, and at row i - 1 of the next.
        """
        total = 0
        for down, right in np.ndindex(i + 1, j + 1):
            n = 3 * (i + 1 - 2 * down) + (j + 1 - 2 * right)
            here = _shift(position, down, right) == n
            total += jnp.where(here, _shift(g, down, right), 0)
        return total

    rows = [jnp.stack([gradient(i, 0), gradient(i, 1)], axis=3) for i in (0, 1)]
    b, h, w, c = g.shape
    return (jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, c),)


def _shift(x: Array, down: int, right: int) -> Array:
    """Shift x up by `down` rows and left by `right` columns; zeros come in."""
    padding = ((0, 0), (0, down), (0, right), (0, 0))
    return jnp.pad(x, padding)[:, down:, right:]


max_pool_3x3.defvjp(_max_pool_3x3_forward, _max_pool_3x3_backward)
