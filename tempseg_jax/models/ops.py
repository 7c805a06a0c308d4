"""Convolutions and pooling, each in the form that is fastest on the target platform.

Two operations have one form for CPUs and another for all other platforms. Both forms
are traced, by `jax.lax.platform_dependent`; the form is chosen when the program is
lowered for a platform, so an export or an ahead-of-time compilation gets the form of
its target and not that of the machine it was made on.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

# A context variable that is part of the keys of JAX's tracing caches.
_traced_platform = jax.make_user_context(default_value=None)


def forms_of(platform: str) -> AbstractContextManager:
    """Trace only one platform's form of each operation, within a `with` block.

    The jaxpr then contains no `platform_index` and no `cond`, for converters that do
    not know them. The block must surround the trace (the call of `jax.make_jaxpr`, of
    `jax.export.export(...)(...)`, or the first call of a jitted function); it changes
    nothing in a jaxpr that has already been traced. The program is then correct on
    every platform, but fastest on this one.

    Args:
        platform: One of `PLATFORMS`.

    Raises:
        ValueError: If the platform is not one of `PLATFORMS`.
    """
    if platform not in PLATFORMS:
        raise ValueError(
            f"platform={platform!r} is not known; use one of {', '.join(PLATFORMS)}"
        )
    return _traced_platform(platform)


def by_platform(*args: Array, cpu: Callable, default: Callable) -> Array:
    """Apply `cpu` on a CPU and `default` on every other platform."""
    if cpu is default:
        return cpu(*args)
    match _traced_platform.value:
        case None:
            return jax.lax.platform_dependent(*args, cpu=cpu, default=default)
        case "cpu":
            return cpu(*args)
    return default(*args)


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


@jax.custom_jvp
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """max(x, 0), with a gradient that needs the output alone.

    The gradient of `nn.relu` tests the input, so that a convolution's output is kept
    beside its ReLU's, and the two are not computed in one kernel on a GPU. The test
    here is `!= 0`, because XLA turns `max(x, 0) > 0` back into `x > 0`.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = relu(primals[0])
    return y, jnp.where(y != 0, tangents[0], 0)


@jax.custom_vjp
def add_bias(x: Float[Array, "*b c"], bias: Float[Array, "c"]) -> Float[Array, "*b c"]:
    """Add a float32 bias in the dtype of x; sum its gradient in float32.

    XLA would otherwise sum the gradient over all pixels of a batch in bfloat16 or
    float16.
    """
    return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def _add_bias_forward(x: Array, bias: Array) -> tuple[Array, Array]:
    return add_bias(x, bias), bias


def _add_bias_backward(bias: Array, g: Array) -> tuple[Array, Array]:
    axes = tuple(range(g.ndim - 1))
    return g, jnp.sum(g, axes, dtype=bias.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


class SameConv(nn.Module):
    """A convolution with an odd kernel size k and zero padding of k // 2.

    A 1x1 convolution is computed as a matrix product on every platform. On a CPU, a
    larger kernel is computed as a matrix product over extracted patches if the image
    has fewer pixels than channels or kernel positions: XLA's convolution and its
    gradients take 1.1 to 4 times as long there, and hundreds of times as long if the
    kernel is as large as the image, as can happen for fc6 of VGG-16.
    """

    channels: int
    kernel_size: int
    dtype: DTypeLike
    stride: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, leave_out_bias: bool = False
    ) -> Float[Array, "b h_out w_out d"]:
        """Compute the same as `nn.Conv` with the same parameters."""
        k, (h, w, c) = self.kernel_size, x.shape[1:]
        shape = (k, k, c, self.channels)
        kernel = self.param("kernel", self.kernel_init, shape)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        patches = partial(_conv_of_patches, stride=self.stride)
        plain = partial(_conv, stride=self.stride)
        like_fc6 = k > 3 and self.stride == 1
        if isinstance(h * w, int):
            few_pixels = h * w < max(c, k * k)
        else:  # symbolic, in an export for all sizes: fc6 is where it matters most
            few_pixels = like_fc6
        y = by_platform(
            x,
            kernel,
            cpu=patches if k == 1 or few_pixels else plain,
            default=patches if like_fc6 else plain,
        )
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return y if leave_out_bias else add_bias(y, bias)


def _conv(x: Array, kernel: Array, *, stride: int) -> Array:
    border = (kernel.shape[0] // 2, kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=(border, border),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _conv_of_patches(x: Array, kernel: Array, *, stride: int) -> Array:
    """Extract the k x k patch around each output pixel; multiply by the kernel."""
    k, (h, w, c), s = kernel.shape[0], x.shape[1:], stride
    border = (k // 2, k // 2)
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    taps = [x[:, i : i + h : s, j : j + w : s] for i in range(k) for j in range(k)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(k * k * c, -1)


def transposed_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "size size c d"]
) -> Float[Array, "b h_out w_out d"]:
    """Transposed convolution with kernel size 2s and stride s, in sub-pixel form."""
    s, (b, h, w, c), d = kernel.shape[0] // 2, x.shape, kernel.shape[-1]
    # Position p of a 2x2 window meets the kernel's rows (1 - p) * s ... + s - 1.
    taps = kernel.reshape(2, s, 2, s, c, d)[::-1, :, ::-1]
    taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, c, s * s * d)
    windows = by_platform(x, taps, cpu=_conv_2x2, default=_conv_2x2_of_patches)
    tiles = windows.reshape(b, h + 1, w + 1, s, s, d).transpose(0, 1, 3, 2, 4, 5)
    y = tiles.reshape(b, (h + 1) * s, (w + 1) * s, d)
    return y[:, s // 2 : -(s // 2), s // 2 : -(s // 2)]


def _conv_2x2(x: Array, taps: Array) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        taps,
        window_strides=(1, 1),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _conv_2x2_of_patches(x: Array, taps: Array) -> Array:
    """As a product, whose kernel gradient is one too: no convolution of its size."""
    h, w, c = x.shape[1:]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [x[:, i : i + h + 1, j : j + w + 1] for i in (0, 1) for j in (0, 1)]
    return jnp.concatenate(windows, axis=-1) @ taps.reshape(4 * c, -1)


class HalvingConv(nn.Module):
    """A 4x4 convolution with stride 2 and "SAME" padding.

    On a CPU the gradient with respect to an input of even height and width, which is a
    transposed convolution, is computed in sub-pixel form: XLA's own form takes three
    times as long for the discriminator's first layer.
    """

    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, leave_out_bias: bool = False
    ) -> Float[Array, "b h_out w_out d"]:
        """Compute the same as `nn.Conv` with the same parameters."""
        shape = (4, 4, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.normal(0.02), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        even = x.shape[1] % 2 == x.shape[2] % 2 == 0
        halve = _halve_even if even else _halve
        y = halve(x, kernel)
        return y if leave_out_bias else add_bias(y, bias)


def _halve(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(2, 2),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


_halve_even = jax.custom_vjp(_halve)


def _halve_even_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _halve(x, kernel), (x, kernel)


def _halve_even_backward(
    residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = residuals

    def by_sub_pixels(g: Array, kernel: Array) -> Array:
        return transposed_conv(g, kernel.swapaxes(2, 3))

    def by_transposition(g: Array, kernel: Array) -> Array:
        return jax.linear_transpose(lambda x: _halve(x, kernel), x)(g)[0]

    (kernel_gradient,) = jax.linear_transpose(lambda k: _halve(x, k), kernel)(g)
    x_gradient = by_platform(g, kernel, cpu=by_sub_pixels, default=by_transposition)
    return x_gradient, kernel_gradient


_halve_even.defvjp(_halve_even_forward, _halve_even_backward)
