"""The gradient of a convolution's kernel on a CPU, summed over parts of the images."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tempseg_jax.models.ops.dilated import conv

_PART_BYTES = 1_500_000
"""Bytes of the images and of the output in a part: about what stays in the cache."""

_MOST_PARTS = 16
"""More of them take longer to compile than the demo's few hundred steps repay."""

_FEWEST_PIXELS = 700
"""Pixels of the output in a part, below which adding up the parts costs more."""


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def conv_on_cpu(
    stride: int,
    dilation: int,
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
) -> Float[Array, "b h_out w_out d"]:
    """Convolve as `conv` does, with a gradient of the kernel that is fast on a CPU."""
    return conv(x, kernel, stride=stride, dilation=dilation)


def _forward(stride: int, dilation: int, x: Array, kernel: Array) -> tuple:
    return conv_on_cpu(stride, dilation, x, kernel), (x, kernel)


def _backward(
    stride: int, dilation: int, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = residuals

    def of_image(x: Array) -> Array:
        return conv(x, kernel, stride=stride, dilation=dilation)

    kernel_gradient = gradient_in_parts(
        x,
        g,
        kernel_size=kernel.shape[0],
        stride=stride,
        dilation=dilation,
        border=dilation * (kernel.shape[0] // 2),
    )
    return jax.linear_transpose(of_image, x)(g)[0], kernel_gradient


conv_on_cpu.defvjp(_forward, _backward)


def gradient_in_parts(
    x: Float[Array, "b h w c"],
    g: Float[Array, "b h_out w_out d"],
    *,
    kernel_size: int,
    stride: int,
    dilation: int = 1,
    border: int,
) -> Float[Array, "k k c d"]:
    """Return the gradient of the kernel of a convolution with zero padding.

    XLA computes it for all pixels at once, and reads the images from memory once for
    each position of the kernel. If they are large, this takes 1.1 to 2.5 times as long
    as the sum over parts that stay in the cache.

    Args:
        x: The images that were convolved.
        g: The gradient of the output.
        kernel_size: Height and width of the kernel, k.
        stride: Of the convolution.
        dilation: Pixels between neighboring positions of the kernel.
        border: Rows and columns of zeros that the convolution added on each side.
    """
    shape = (kernel_size, kernel_size, x.shape[-1], g.shape[-1])

    def gradient(x: Array, g: Array, border: int) -> Array:
        def of_kernel(kernel: Array) -> Array:
            return jax.lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(stride, stride),
                padding=((border, border),) * 2,
                rhs_dilation=(dilation, dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

        kernel = jax.ShapeDtypeStruct(shape, x.dtype)
        return jax.linear_transpose(of_kernel, kernel)(g)[0]

    pixels = _pixels_of_part(x, g, stride)
    if pixels is None:
        return gradient(x, g, border)
    padded = jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    reach = dilation * (kernel_size - 1) + 1  # rows that the kernel covers
    columns = stride * (g.shape[2] - 1) + reach
    total = jnp.zeros(shape, jnp.float32)
    for images, first, end in _parts(g, pixels):
        rows = slice(stride * first, stride * (end - 1) + reach)
        part = gradient(padded[images, rows, :columns], g[images, first:end], 0)
        total += part.astype(jnp.float32)
    return total.astype(x.dtype)


def _pixels_of_part(x: Array, g: Array, stride: int) -> int | None:
    """Return the pixels of g in a part; None if the whole is faster at once."""
    channels = stride**2 * x.shape[-1] + g.shape[-1]
    pixels = _PART_BYTES // (x.dtype.itemsize * channels)
    height, width, d = g.shape[1:]
    # Measured: images below 32x32 and narrow outputs are slower in parts.
    if pixels < _FEWEST_PIXELS or height * width < 1024 or d < 32:
        return None
    total = g.shape[0] * height * width
    return max(pixels, total // _MOST_PARTS) if total >= 2 * pixels else None


def _parts(g: Array, pixels: int) -> Iterator[tuple[slice, int, int]]:
    """Yield images, first row and end row of each part; rows only of one image."""
    b, height, width, _ = g.shape
    if height * width <= pixels:
        images = pixels // (height * width)
        for i in range(0, b, images):
            yield slice(i, i + images), 0, height
        return
    rows = max(1, round(pixels / width))
    for i in range(b):
        for first in range(0, height, rows):
            yield slice(i, i + 1), first, min(first + rows, height)
