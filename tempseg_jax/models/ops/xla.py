"""XLA's convolution, in the array layouts of this package."""

from typing import Literal

import jax
from jaxtyping import Array, Float


def xla_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c_of_group d"],
    *,
    padding: int | Literal["SAME"],
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "b h_out w_out d"]:
    """Convolve by XLA's operation.

    Args:
        x: The images.
        kernel: The kernel of k x k positions.
        padding: Rows and columns of zeros on each side, or "SAME" as in TensorFlow.
        stride: Pixels between neighboring windows.
        dilation: Pixels between neighboring positions of the kernel.
        groups: Groups of channels that are convolved by themselves.
    """
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=padding if padding == "SAME" else ((padding, padding),) * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
