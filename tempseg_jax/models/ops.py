"""Convolutions and pooling, each in the form that is fastest on the target platform.

Two operations have one form for CPUs and another for all other platforms. Both forms
are traced, by `jax.lax.platform_dependent`; the form is chosen when the program is
lowered for a platform, so an export or an ahead-of-time compilation gets the form of
its target and not that of the machine it was made on.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
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


def _by_platform(*args: Array, cpu: Callable, default: Callable) -> Array:
    """Apply `cpu` on a CPU and `default` on every other platform."""
    match _traced_platform.value:
        case None:
            return jax.lax.platform_dependent(*args, cpu=cpu, default=default)
        case "cpu":
            return cpu(*args)
    return default(*args)


def max_pool_2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out c"]:
    """Max pooling with a 2x2 window and stride 2, for even heights and widths.

    It is a reduction of a reshaped array, whose gradient is elementwise. The gradient
    of XLA's reduce-window (`nn.max_pool`) is a scatter, six times slower on a CPU.
    """
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def max_pool_3x3(x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out c"]:
    """Max pooling with a 3x3 window, stride 2, padding 1, for even heights and widths.

    It takes maxima of shifted slices, first over rows and then over columns, so that
    the gradient contains no scatter (see `max_pool_2x2`).
    """
    h, w = x.shape[1:3]
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = jnp.pad(x, border, constant_values=-jnp.inf)
    x = jnp.maximum(jnp.maximum(x[:, 0:h:2], x[:, 1:h:2]), x[:, 2 : h + 2 : 2])
    return jnp.maximum(
        jnp.maximum(x[:, :, 0:w:2], x[:, :, 1:w:2]), x[:, :, 2 : w + 2 : 2]
    )


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

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out d"]:
        """Compute the same as `nn.Conv` with the same parameters."""
        k, (h, w, c) = self.kernel_size, x.shape[1:]
        shape = (k, k, c, self.channels)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        if isinstance(h * w, int):
            few_pixels = h * w < max(c, k * k)
        else:  # symbolic, in an export for all sizes: fc6 is where it matters most
            few_pixels = k > 3 and self.stride == 1
        patches = partial(_conv_of_patches, stride=self.stride)
        plain = partial(_conv, stride=self.stride)
        if k == 1:
            y = patches(x, kernel)
        elif few_pixels:
            y = _by_platform(x, kernel, cpu=patches, default=plain)
        else:
            y = plain(x, kernel)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return y + bias.astype(y.dtype)[None, None, None]


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
    windows = jax.lax.conv_general_dilated(
        x,
        taps,
        window_strides=(1, 1),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    tiles = windows.reshape(b, h + 1, w + 1, s, s, d).transpose(0, 1, 3, 2, 4, 5)
    y = tiles.reshape(b, (h + 1) * s, (w + 1) * s, d)
    return y[:, s // 2 : -(s // 2), s // 2 : -(s // 2)]


class HalvingConv(nn.Module):
    """A 4x4 convolution with stride 2 and "SAME" padding.

    On a CPU the gradient with respect to an input of even height and width, which is a
    transposed convolution, is computed in sub-pixel form: XLA's own form takes three
    times as long for the discriminator's first layer.
    """

    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out d"]:
        """Compute the same as `nn.Conv` with the same parameters."""
        shape = (4, 4, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.normal(0.02), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        even = x.shape[1] % 2 == x.shape[2] % 2 == 0
        halve = _halve_even if even else _halve
        return halve(x, kernel) + bias[None, None, None]


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
    x_gradient = _by_platform(g, kernel, cpu=by_sub_pixels, default=by_transposition)
    return x_gradient, kernel_gradient


_halve_even.defvjp(_halve_even_forward, _halve_even_backward)
