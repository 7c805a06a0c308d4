"""MobileNetV3-Large (Howard et al. 2019) as a backbone, as in torchvision."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.batch_norm import normalized_conv
from tempseg_jax.models.frozen_batch_norm import batch_norm
from tempseg_jax.models.ops import DepthwiseConv, SameConv, relu


class BlockShape(NamedTuple):
    """One row of table 1 of the paper."""

    kernel_size: int  # of the depthwise convolution
    expanded: int  # channels in the block
    channels: int  # channels of its output
    squeeze: bool  # whether it has squeeze-and-excitation
    hard_swish: bool  # the activation; a ReLU if False
    stride: int


LARGE = (
    BlockShape(3, 16, 16, False, False, 1),
    BlockShape(3, 64, 24, False, False, 2),
    BlockShape(3, 72, 24, False, False, 1),
    BlockShape(5, 72, 40, True, False, 2),
    BlockShape(5, 120, 40, True, False, 1),
    BlockShape(5, 120, 40, True, False, 1),
    BlockShape(3, 240, 80, False, True, 2),
    BlockShape(3, 200, 80, False, True, 1),
    BlockShape(3, 184, 80, False, True, 1),
    BlockShape(3, 184, 80, False, True, 1),
    BlockShape(3, 480, 112, True, True, 1),
    BlockShape(3, 672, 112, True, True, 1),
    BlockShape(5, 672, 160, True, True, 2),
    BlockShape(5, 960, 160, True, True, 1),
    BlockShape(5, 960, 160, True, True, 1),
)
STEM, LAST_FACTOR = 16, 6  # channels of the first convolution; of the last per input


def divisible_channels(channels: int | float) -> int:
    """Round to a multiple of 8, at least 8, without losing more than 10 %."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-and-excitation, 1x1 projection."""

    shape: BlockShape  # its channels already multiplied by the width
    expand: bool  # all blocks but the first have the expansion
    dilation: int
    batch_norm_epsilon: float
    dtype: DTypeLike
    freeze_batch_norm: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool
    ) -> Float[Array, "b h_out w_out d"]:
        """Return the output; with the input added where the two have one shape."""
        shape, inputs = self.shape, x.shape[-1]
        y = x

        def norm(name: str) -> nn.Module:
            return _norm(self, name)

        activate = jax.nn.hard_swish if shape.hard_swish else relu
        if self.expand:
            conv = SameConv(shape.expanded, 1, self.dtype, use_bias=False, name="conv1")
            y = activate(normalized_conv(conv, norm("bn1"), y, train=train))
        conv = DepthwiseConv(
            shape.kernel_size,
            self.dtype,
            stride=shape.stride,
            dilation=self.dilation,
            name="conv2",
        )
        y = activate(normalized_conv(conv, norm("bn2"), y, train=train))
        if shape.squeeze:
            y = SqueezeExcitation(self.dtype, name="squeeze")(y)
        conv = SameConv(shape.channels, 1, self.dtype, use_bias=False, name="conv3")
        y = normalized_conv(conv, norm("bn3"), y, train=train)
        return x + y if shape.stride == 1 and shape.channels == inputs else y


class SqueezeExcitation(nn.Module):
    """Multiply channels by factors from their means (Hu et al. 2018)."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Return x, multiplied by factors from 0 to 1."""
        channels = x.shape[-1]
        mean = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
        squeezed = divisible_channels(channels // 4)
        y = relu(SameConv(squeezed, 1, self.dtype, name="fc1")(mean.astype(x.dtype)))
        return x * jax.nn.hard_sigmoid(SameConv(channels, 1, self.dtype, name="fc2")(y))


class MobileNetV3(nn.Module):
    """MobileNetV3-Large with a dilated last stage, at output stride 16, or 32 without.

    The features of stage s are at stride 2^s: the output of the stage's first block, as
    in torchvision's LR-ASPP; those of the last stage follow its last 1x1 convolution.
    """

    batch_norm_epsilon: float
    width: float  # multiplies every channel count, rounded to multiples of 8
    dtype: DTypeLike  # of the convolutions; parameters and statistics are float32
    remat: bool  # recompute each block's activations in the backward pass
    output_stride: int = 16  # input pixels per feature of the last stage
    freeze_batch_norm: str = "none"  # one of FREEZE_BATCH_NORM

    output_strides = (32, 16)
    last_stage = 5

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], *, train: bool
    ) -> dict[int, Float[Array, "b _ _ _"]]:
        """Return {stage: features}, from stage 2."""

        def layer(x: Array, name: str, channels: int, size: int, stride: int) -> Array:
            conv = SameConv(
                channels,
                size,
                self.dtype,
                stride=stride,
                use_bias=False,
                name=f"conv_{name}",
            )
            norm = _norm(self, f"bn_{name}")
            return jax.nn.hard_swish(normalized_conv(conv, norm, x, train=train))

        block: Callable = InvertedResidual
        if self.remat:
            block = nn.remat(InvertedResidual, static_argnums=(2,))
        x = layer(x, "stem", self._channels(STEM), 3, 2)
        features, stage = {}, 1
        for i, shape in enumerate(LARGE, start=1):
            stage += shape.stride == 2
            dilated = 2**stage > self.output_stride
            x = block(
                shape=shape._replace(
                    expanded=self._channels(shape.expanded),
                    channels=self._channels(shape.channels),
                    stride=1 if dilated else shape.stride,
                ),
                expand=i > 1,
                dilation=2 if dilated else 1,
                batch_norm_epsilon=self.batch_norm_epsilon,
                dtype=self.dtype,
                freeze_batch_norm=self.freeze_batch_norm,
                name=f"block{i}",
            )(x, train)
            if shape.stride == 2:
                features[stage] = x
        features[stage] = layer(x, "last", LAST_FACTOR * x.shape[-1], 1, 1)
        return features

    def _channels(self, published: int) -> int:
        return divisible_channels(published * self.width)


def _norm(module: InvertedResidual | MobileNetV3, name: str) -> nn.Module:
    return batch_norm(
        module.freeze_batch_norm,
        epsilon=module.batch_norm_epsilon,
        dtype=module.dtype,
        negative_slope=None,
        name=name,
    )
