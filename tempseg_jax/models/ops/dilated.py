"""Dilated convolutions whose kernel gradient is that of an ordinary convolution."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c_of_group d"],
    *,
    stride: int,
    dilation: int,
    groups: int = 1,
) -> Float[Array, "b h_out w_out d"]:
    """Convolve by XLA's operation, with zero padding of dilation * (k // 2)."""
    border = (dilation * (kernel.shape[0] // 2),) * 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=(border, border),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def dilated_conv(
    dilation: int, x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"]
) -> Float[Array, "b h w d"]:
    """Convolve with stride 1, with a gradient of the kernel that is fast on a GPU.

    XLA writes that gradient as a strided convolution whose kernel is as large as the
    image, which jax #32231 reports to be slow. The pixels whose rows, and whose
    columns, have the same remainder when divided by the dilation form a map on which
    the convolution is an ordinary one; the gradient is that of all these maps as one
    batch.
    """
    return conv(x, kernel, stride=1, dilation=dilation)


def _forward(dilation: int, x: Array, kernel: Array) -> tuple:
    return dilated_conv(dilation, x, kernel), (x, kernel)


def _backward(dilation: int, residuals: tuple, g: Array) -> tuple[Array, Array]:
    x, kernel = residuals

    def of_image(x: Array) -> Array:
        return conv(x, kernel, stride=1, dilation=dilation)

    def of_kernel(kernel: Array) -> Array:
        return conv(space_to_batch(x, dilation), kernel, stride=1, dilation=1)

    (x_gradient,) = jax.linear_transpose(of_image, x)(g)
    (kernel_gradient,) = jax.linear_transpose(of_kernel, kernel)(
        space_to_batch(g, dilation)
    )
    return x_gradient, kernel_gradient


dilated_conv.defvjp(_forward, _backward)


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
