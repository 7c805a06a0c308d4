"""Depthwise convolutions, computed as sums of products on a CPU."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.ops.platform import by_platform
from tempseg_jax.models.ops.xla import xla_conv


class DepthwiseConv(nn.Module):
    """A convolution of each channel by itself, without a bias, padded like `SameConv`.

    On a CPU it is a sum over the kernel's positions, which XLA computes in one loop:
    its convolution with groups, and above all the gradients, take many times as long.
    """

    kernel_size: int
    dtype: DTypeLike
    stride: int = 1
    dilation: int = 1  # pixels between neighboring kernel positions
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, leave_out_bias: bool = True
    ) -> Float[Array, "b h_out w_out c"]:
        """Compute the same as `nn.Conv` with as many groups as channels."""
        del leave_out_bias  # there is none; `normalized_conv` passes it
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        strides = {"stride": self.stride, "dilation": self.dilation}
        return by_platform(
            x,
            kernel,
            cpu=partial(_sum_of_products, **strides),
            default=partial(
                xla_conv,
                padding=self.dilation * (self.kernel_size // 2),
                groups=x.shape[-1],
                **strides,
            ),
        )


def _sum_of_products(x: Array, kernel: Array, *, stride: int, dilation: int) -> Array:
    k, (h, w, _), s, dtype = kernel.shape[0], x.shape[1:], stride, x.dtype
    border = (dilation * (k // 2),) * 2
    x = jnp.pad(x, ((0, 0), border, border, (0, 0))).astype(jnp.float32)
    kernel = kernel.astype(jnp.float32)[:, :, None, None]
    starts = range(0, k * dilation, dilation)
    products = [
        x[:, top : top + h : s, left : left + w : s] * kernel[i, j]
        for i, top in enumerate(starts)
        for j, left in enumerate(starts)
    ]
    return sum(products).astype(dtype)
