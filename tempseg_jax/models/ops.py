"""Convolutions and pools in the form that is fastest on each platform."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def max_pool_2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out c"]:
    """Halve even sides by the maximum of each 2x2 tile.

    As a reduction of a reshaped array its gradient is elementwise; that of XLA's
    reduce-window (`nn.max_pool`) is a scatter, six times slower on a CPU.
    """
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def max_pool_3x3(x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out c"]:
    """Halve even sides by the maximum of 3x3 windows of stride 2 around even pixels.

    Maxima of shifted slices, rows then columns: as above, for the sake of the gradient.
    """
    h, w = x.shape[1:3]
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = jnp.pad(x, border, constant_values=-jnp.inf)
    x = jnp.maximum(jnp.maximum(x[:, 0:h:2], x[:, 1:h:2]), x[:, 2 : h + 2 : 2])
    return jnp.maximum(
        jnp.maximum(x[:, :, 0:w:2], x[:, :, 1:w:2]), x[:, :, 2 : w + 2 : 2]
    )


class SameConv(nn.Module):
    """A convolution of odd kernel k inside a border of zeros, k // 2 wide.

    With a kernel of 1 it is the matrix product that it is; on a CPU with fewer pixels
    than channels or taps it is one over patches. XLA's convolution and its gradients
    take 1.1 to 4 times as long there, and hundreds of times where the kernel is as
    large as the image, as VGG-16's fc6 may be.
    """

    channels: int
    kernel_size: int
    dtype: DTypeLike
    stride: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out d"]:
        """Equal `nn.Conv` of the same parameters."""
        k, s, (h, w, c) = self.kernel_size, self.stride, x.shape[1:]
        shape = (k, k, c, self.channels)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        border = (k // 2, k // 2)
        if isinstance(h * w, int):
            few = h * w < max(c, k * k)
        else:  # symbols, in an export for all sizes: fc6 is where it matters most
            few = k > 3 and s == 1
        if k == 1 or (few and jax.default_backend() == "cpu"):
            x = jnp.pad(x, ((0, 0), border, border, (0, 0)))
            taps = [
                x[:, i : i + h : s, j : j + w : s] for i in range(k) for j in range(k)
            ]
            y = jnp.concatenate(taps, axis=-1) @ kernel.reshape(k * k * c, -1)
        else:
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(s, s),
                padding=(border, border),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return y + bias.astype(y.dtype)[None, None, None]


def transposed_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "size size c d"]
) -> Float[Array, "b h_out w_out d"]:
    """Enlarge s times by a transposed convolution of kernel 2s, in sub-pixel form."""
    s, (b, h, w, c), d = kernel.shape[0] // 2, x.shape, kernel.shape[-1]
    # Row 2x2-position p of a window meets kernel rows (1 - p) * s ... + s - 1.
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
    """A "SAME" 4x4 convolution of stride 2.

    On a CPU the gradient of an even input, which is a transposed convolution, is taken
    in sub-pixel form: XLA's own takes three times as long for D's first layer.
    """

    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out d"]:
        """Equal `nn.Conv` of the same parameters."""
        shape = (4, 4, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.normal(0.02), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        even = x.shape[1] % 2 == x.shape[2] % 2 == 0
        halve = _halve_on_cpu if even and jax.default_backend() == "cpu" else _halve
        return halve(x, kernel) + bias[None, None, None]


def _halve(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(2, 2),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


_halve_on_cpu = jax.custom_vjp(_halve)


def _halve_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _halve(x, kernel), (x, kernel)


def _halve_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (of_kernel,) = jax.vjp(lambda kernel: _halve(x, kernel), kernel)[1](g)
    return transposed_conv(g, kernel.swapaxes(2, 3)), of_kernel


_halve_on_cpu.defvjp(_halve_forward, _halve_backward)
