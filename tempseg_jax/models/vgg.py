"""VGG-16, fully connected layers as convolutions (Simonyan & Zisserman 2014)."""

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.ops import SameConv, max_pool_2x2

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions and channels of each block."""


class ConvBlock(nn.Module):
    """3x3 convolutions with ReLU, then a 2x2 maximum."""

    convolutions: int
    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out d"]:
        """Halve the sides."""
        for i in range(self.convolutions):
            conv = SameConv(self.channels, 3, self.dtype, name=f"conv{i + 1}")
            x = nn.relu(conv(x))
        return max_pool_2x2(x)


class VGG16(nn.Module):
    """Image to features at strides 8, 16 and 32; the last has passed fc6 and fc7."""

    width: float  # multiplies every channel count; 1 is the published network
    dtype: DTypeLike
    remat: bool  # recompute each block in the backward pass instead of storing it

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], *, train: bool
    ) -> dict[int, Float[Array, "b _ _ _"]]:
        """Return {stride: features}; training needs a `dropout` generator."""
        block = nn.remat(ConvBlock) if self.remat else ConvBlock
        features = {}
        for i, (convolutions, channels) in enumerate(BLOCKS, start=1):
            x = block(
                convolutions,
                round(channels * self.width),
                self.dtype,
                name=f"block{i}",
            )(x)
            features[2**i] = x
        for name, kernel_size in (("fc6", 7), ("fc7", 1)):
            channels = round(4096 * self.width)
            x = nn.relu(SameConv(channels, kernel_size, self.dtype, name=name)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return {8: features[8], 16: features[16], 32: x}
