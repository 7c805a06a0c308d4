"""The gradient of a convolution's kernel, in the form that is fast on a platform."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tempseg_jax.models.ops.platform import by_platform
from tempseg_jax.models.ops.xla import xla_conv

_PART_BYTES = 1_500_000
"""Bytes of the images and of the output in a part: about what stays in the cache."""

_MOST_PARTS = 16
"""More of them take longer to compile than the demo's few hundred steps repay."""

_FEWEST_PIXELS = 700
"""Pixels of the output in a part, below which adding up the parts costs more."""


def kernel_gradient(
    x: Float[Array, "b h w c"],
    g: Float[Array, "b h_out w_out d"],
    *,
    kernel_size: int,
    padding: int,
    stride: int = 1,
    dilation: int = 1,
) -> Float[Array, "k k c d"]:
    """Return the gradient of the kernel of a convolution with zero padding.

    Args:
        x: The images that were convolved.
        g: The gradient of the output.
        kernel_size: Height and width of the kernel, k.
        padding: Rows and columns of zeros that the convolution added on each side.
        stride: Pixels between neighboring windows.
        dilation: Pixels between neighboring positions of the kernel.
    """
    numbers = {"kernel_size": kernel_size, "stride": stride}
    default = partial(_at_once, **numbers, padding=padding, dilation=dilation)
    if dilation > 1 and stride == 1:
        default = partial(
            _by_space_to_batch, kernel_size=kernel_size, dilation=dilation
        )
    in_parts = partial(_in_parts, **numbers, padding=padding, dilation=dilation)
    return by_platform(x, g, cpu=in_parts, default=default)


def _at_once(
    x: Array, g: Array, *, kernel_size: int, padding: int, stride: int, dilation: int
) -> Array:
    def of_kernel(kernel: Array) -> Array:
        return xla_conv(x, kernel, padding=padding, stride=stride, dilation=dilation)

    shape = (kernel_size, kernel_size, x.shape[-1], g.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.linear_transpose(of_kernel, kernel)(g)[0]


def _by_space_to_batch(x: Array, g: Array, *, kernel_size: int, dilation: int) -> Array:
    """Return the gradient of a dilated kernel as that of an ordinary one.

    XLA writes it as a strided convolution whose kernel is as large as the image, which
    jax #32231 reports to be slow on a GPU. The pixels whose rows, and whose columns,
    have the same remainder when divided by the dilation form a map on which the
    convolution is an ordinary one; the gradient is that of all these maps as one batch.
    """
    return _at_once(
        space_to_batch(x, dilation),
        space_to_batch(g, dilation),
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        stride=1,
        dilation=1,
    )


def space_to_batch(
    x: Float[Array, "b h w c"], dilation: int
) -> Float[Array, "maps h_out w_out c"]:
    """Return the maps of pixels that a dilated convolution connects, zero-padded."""
    b, h, w, c = x.shape
    d = dilation
    x = jnp.pad(x, ((0, 0), (0, -h % d), (0, -w % d), (0, 0)))
    rows, columns = x.shape[1] // d, x.shape[2] // d
    x = x.reshape(b, rows, d, columns, d, c).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(b * d * d, rows, columns, c)


def _in_parts(
    x: Array, g: Array, *, kernel_size: int, padding: int, stride: int, dilation: int
) -> Array:
    """Return the gradient as a sum over parts of the images that stay in the cache.

    XLA computes it for all pixels at once, and reads the images from memory once for
    each position of the kernel. If they are large, this takes 1.1 to 2.5 times as long
    on a CPU.
    """
    gradient = partial(
        _at_once, kernel_size=kernel_size, stride=stride, dilation=dilation
    )
    pixels = _pixels_of_part(x, g, stride)
    if pixels is None:
        return gradient(x, g, padding=padding)
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    reach = dilation * (kernel_size - 1) + 1  # rows that the kernel covers
    columns = stride * (g.shape[2] - 1) + reach
    sums = jnp.zeros((), jnp.float32)
    for images, first, end in _parts(g, pixels):
        rows = slice(stride * first, stride * (end - 1) + reach)
        part = gradient(x[images, rows, :columns], g[images, first:end], padding=0)
        sums += part.astype(jnp.float32)
    return sums.astype(x.dtype)


def _pixels_of_part(x: Array, g: Array, stride: int) -> int | None:
    """Return the pixels of g in a part; None if all of them at once are faster."""
    channels = stride**2 * x.shape[-1] + g.shape[-1]
    pixels = _PART_BYTES // (x.dtype.itemsize * channels)
    b, height, width, d = g.shape
    # Measured: images below 32x32 and narrow outputs are slower in parts.
    if pixels < _FEWEST_PIXELS or height * width < 1024 or d < 32:
        return None
    total = b * height * width
    return max(pixels, total // _MOST_PARTS) if total >= 2 * pixels else None


def _parts(g: Array, pixels: int) -> Iterator[tuple[slice, int, int]]:
    """Yield the images, first row and end row of each part; rows of one image only."""
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
