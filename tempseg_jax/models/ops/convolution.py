"""Convolutions, computed as matrix products where these are faster."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.ops.elementwise import add_bias
from tempseg_jax.models.ops.kernel_gradient import kernel_gradient
from tempseg_jax.models.ops.platform import by_platform
from tempseg_jax.models.ops.xla import xla_conv


class SameConv(nn.Module):
    """A convolution with an odd kernel size k, dilation d and zero padding d (k // 2).

    On a CPU, a 1x1 convolution is computed as a matrix product, and so is a larger one,
    over extracted patches, if the image has fewer pixels than channels or kernel
    positions: XLA's convolution and its gradients take 1.1 to 4 times as long, and
    hundreds of times as long if the kernel is as large as the image, as can happen for
    fc6 of VGG-16. On other platforms only kernels above 3x3 with stride 1 are.
    """

    channels: int
    kernel_size: int
    dtype: DTypeLike
    stride: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    dilation: int = 1  # pixels between neighboring kernel positions

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, leave_out_bias: bool = False
    ) -> Float[Array, "b h_out w_out d"]:
        """Compute the same as `nn.Conv` with the same parameters."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.kernel_init, shape)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        y = same_conv(x, kernel, stride=self.stride, dilation=self.dilation)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return y if leave_out_bias else add_bias(y, bias)


def same_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
    *,
    stride: int,
    dilation: int = 1,
) -> Float[Array, "b h_out w_out d"]:
    """Convolve as `SameConv` does, without a bias; both arrays have one dtype."""
    k, (h, w, c) = kernel.shape[0], x.shape[1:]
    patches = partial(_conv_of_patches, stride=stride, dilation=dilation)
    plain = partial(_conv, stride, dilation)
    like_fc6 = k > 3 and stride == 1
    if isinstance(h * w, int):
        few_pixels = h * w < max(c, k * k)
    else:  # symbolic, in an export for all sizes: fc6 is where it matters most
        few_pixels = like_fc6
    return by_platform(
        x,
        kernel,
        cpu=patches if k == 1 or few_pixels else plain,
        default=patches if like_fc6 else plain,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv(
    stride: int,
    dilation: int,
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
) -> Float[Array, "b h_out w_out d"]:
    """Convolve by XLA's operation, with the gradient of `kernel_gradient`."""
    padding = dilation * (kernel.shape[0] // 2)
    return xla_conv(x, kernel, padding=padding, stride=stride, dilation=dilation)


def _conv_forward(stride: int, dilation: int, x: Array, kernel: Array) -> tuple:
    return _conv(stride, dilation, x, kernel), (x, kernel)


def _conv_backward(
    stride: int, dilation: int, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    k = kernel.shape[0]
    numbers = {"stride": stride, "dilation": dilation, "padding": dilation * (k // 2)}
    image_gradient = jax.linear_transpose(lambda x: xla_conv(x, kernel, **numbers), x)
    return image_gradient(g)[0], kernel_gradient(x, g, kernel_size=k, **numbers)


_conv.defvjp(_conv_forward, _conv_backward)


def _conv_of_patches(x: Array, kernel: Array, *, stride: int, dilation: int) -> Array:
    """Extract the k x k patch around each output pixel; multiply by the kernel."""
    k, (h, w, c), s = kernel.shape[0], x.shape[1:], stride
    border = (dilation * (k // 2),) * 2
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    starts = range(0, k * dilation, dilation)
    taps = [x[:, i : i + h : s, j : j + w : s] for i in starts for j in starts]
    return _product(jnp.concatenate(taps, axis=-1), kernel.reshape(k * k * c, -1))


@jax.custom_vjp
def _product(
    x: Float[Array, "b h w c"], kernel: Float[Array, "c d"]
) -> Float[Array, "b h w d"]:
    """Return x @ kernel, with a gradient of the kernel that is fast on a CPU.

    XLA computes a product over pixels from a transposed copy of its first factor. Here
    this is the array with fewer channels; in JAX's own gradient it is always g, which
    has four times as many channels as x in the last convolution of a bottleneck.
    """
    return x @ kernel


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    pixels = tuple(range(x.ndim - 1))
    over_pixels = ((pixels, pixels), ((), ()))
    if x.shape[-1] <= g.shape[-1]:
        kernel_gradient = jax.lax.dot_general(x, g, over_pixels)
    else:
        kernel_gradient = jax.lax.dot_general(g, x, over_pixels).T
    return g @ kernel.T, kernel_gradient


_product.defvjp(_product_forward, _product_backward)


def transposed_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "size size c d"]
) -> Float[Array, "b h_out w_out d"]:
    """Transposed convolution with kernel size 2s and stride s, in sub-pixel form."""
    s, (b, h, w, c), d = kernel.shape[0] // 2, x.shape, kernel.shape[-1]
    # Position p of a 2x2 window meets the kernel's rows (1 - p) * s ... + s - 1.
    taps = kernel.reshape(2, s, 2, s, c, d)[::-1, :, ::-1]
    taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, c, s * s * d)
    # In XLA's convolution of many channels, the patches do not stay in the cache.
    on_cpu = _sum_of_products if c >= 256 else _conv_2x2
    windows = by_platform(x, taps, cpu=on_cpu, default=_conv_2x2_of_patches)
    tiles = windows.reshape(b, h + 1, w + 1, s, s, d).transpose(0, 1, 3, 2, 4, 5)
    y = tiles.reshape(b, (h + 1) * s, (w + 1) * s, d)
    return y[:, s // 2 : -(s // 2), s // 2 : -(s // 2)]


def _conv_2x2(x: Array, taps: Array) -> Array:
    return xla_conv(x, taps, padding=1)


def _conv_2x2_of_patches(x: Array, taps: Array) -> Array:
    """As a product, whose kernel gradient is one too: no convolution of its size."""
    h, w, c = x.shape[1:]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [x[:, i : i + h + 1, j : j + w + 1] for i in (0, 1) for j in (0, 1)]
    return jnp.concatenate(windows, axis=-1) @ taps.reshape(4 * c, -1)


def _sum_of_products(x: Array, taps: Array) -> Array:
    """As one product for each position of the kernel, shifted and added."""
    products = [
        jnp.pad(x @ taps[i, j], ((0, 0), (1 - i, i), (1 - j, j), (0, 0)))
        for i in (0, 1)
        for j in (0, 1)
    ]
    return sum(products)
