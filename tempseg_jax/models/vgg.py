"""VGG-16 (Simonyan & Zisserman 2014) with fully connected layers as convolutions."""

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.drop_connect import DropConnectConv
from tempseg_jax.models.ops import SameConv, max_pool_2x2, relu

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Number of convolutions and of channels in each block."""


class ConvBlock(nn.Module):
    """3x3 convolutions with ReLU, then 2x2 max pooling."""

    convolutions: int
    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out d"]:
        """Return features of half the height and width."""
        for i in range(self.convolutions):
            conv = SameConv(self.channels, 3, self.dtype, name=f"conv{i + 1}")
            x = relu(conv(x))
        return max_pool_2x2(x)


class VGG16(nn.Module):
    """Compute features at strides 8 (pool3), 16 (pool4) and 32 (fc7)."""

    width: float  # multiplies every channel count; 1 is the published network
    dtype: DTypeLike  # of the convolutions; parameters are float32
    remat: bool  # recompute each block's activations in the backward pass
    dropout: float = 0.5  # rate of the dropout after fc6 and after fc7
    drop_connect: float = 0.0  # rate of DropConnect in fc6 and fc7

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], *, train: bool
    ) -> dict[int, Float[Array, "b _ _ _"]]:
        """Return {stride: features}; training needs an rng named "dropout"."""
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
            if self.drop_connect:
                x = DropConnectConv(
                    channels,
                    kernel_size,
                    self.dtype,
                    rate=self.drop_connect,
                    activate=True,
                    name=name,
                )(x, train=train)
            else:
                x = relu(SameConv(channels, kernel_size, self.dtype, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return {8: features[8], 16: features[16], 32: x}
