"""ResNets (He et al. 2016) as backbones, with any output stride by dilation."""

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.batch_norm import normalized_conv
from tempseg_jax.models.frozen_batch_norm import batch_norm
from tempseg_jax.models.ops import SameConv, average_pool_2x2, max_pool_3x3, relu

CHANNELS = (64, 128, 256, 512)
"""Inner channels of each stage; its output has four times the channels."""

RESNET50, RESNET101 = (3, 4, 6, 3), (3, 4, 23, 3)
"""Number of blocks in each stage."""


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions, each followed by BatchNorm."""

    channels: int
    stride: int
    dilation: int  # of the 3x3
    stride_in_3x3: bool  # True: stride in the 3x3 (v1.5); False: in the first 1x1 (v1)
    project: bool  # whether the shortcut is a 1x1 convolution, as in a first block
    conv_bias: bool
    batch_norm_epsilon: float
    dtype: DTypeLike
    freeze_batch_norm: str = "none"
    pool_shortcut: int = 0  # stride of an average pooling in the shortcut; 0: none

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool
    ) -> Float[Array, "b h_out w_out d"]:
        """Return ReLU(shortcut + residual).

        `train` is positional because `nn.remat` takes static arguments by position.
        """

        def layer(
            x: Array,
            i: int,
            channels: int,
            kernel_size: int,
            *,
            stride: int = 1,
            dilation: int = 1,
            negative_slope: float | None = None,
        ) -> Array:
            """Apply the i-th convolution (0: of the shortcut) and its BatchNorm."""
            conv = SameConv(
                channels,
                kernel_size,
                self.dtype,
                stride=stride,
                use_bias=self.conv_bias,
                dilation=dilation,
                name=f"conv{i}",
            )
            norm = batch_norm(
                self.freeze_batch_norm,
                epsilon=self.batch_norm_epsilon,
                dtype=self.dtype,
                negative_slope=negative_slope,
                name=f"bn{i}",
            )
            return normalized_conv(conv, norm, x, train=train)

        first, middle = (1, self.stride) if self.stride_in_3x3 else (self.stride, 1)
        y = layer(x, 1, self.channels, 1, stride=first, negative_slope=0.0)
        y = layer(
            y,
            2,
            self.channels,
            3,
            stride=middle,
            dilation=self.dilation,
            negative_slope=0.0,
        )
        y = layer(y, 3, 4 * self.channels, 1)
        if self.pool_shortcut:
            x = average_pool_2x2(x, stride=self.pool_shortcut)
            x = layer(x, 0, 4 * self.channels, 1)
        elif self.project:
            x = layer(x, 0, 4 * self.channels, 1, stride=self.stride)
        return relu(x + y)


class ResNet(nn.Module):
    """ResNet v1 as in Keras, v1.5 as in torchvision and timm, or D as in timm.

    In v1 the convolutions have biases and the stride is in the first 1x1 of a block; in
    v1.5 they have no biases and the stride is in the 3x3. The stage s, counted from 2
    as in Keras, has features at stride 2^s. Where this is above the output stride, the
    stage has stride 1 and its 3x3 convolutions are dilated instead (Chen et al. 2017).
    ResNet-D is v1.5 with three 3x3 convolutions in place of the first 7x7, and an
    average pooling before the 1x1 of a shortcut (He et al. 2019, "Bag of tricks").
    """

    blocks: tuple[int, ...]  # in each stage: RESNET50 or RESNET101
    v15: bool  # v1.5 (True) or v1 (False)
    batch_norm_epsilon: float
    width: float  # multiplies every channel count; 1 is the published network
    dtype: DTypeLike  # of the convolutions; parameters and statistics are float32
    remat: bool  # recompute each block's activations in the backward pass
    last_stage: int = 5  # 4: without stage 5 (C4)
    output_stride: int = 32  # input pixels per feature of the last stage
    variant_d: bool = False  # ResNet-D
    freeze_batch_norm: str = "none"  # one of FREEZE_BATCH_NORM

    @property
    def output_strides(self) -> tuple[int, ...]:
        """The values that `output_stride` may have."""
        return tuple(x for x in (32, 16, 8) if x <= 2**self.last_stage)

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], *, train: bool
    ) -> dict[int, Float[Array, "b _ _ _"]]:
        """Return {stage: features}, from stage 2."""
        channels = round(64 * self.width)
        if self.variant_d:
            half = max(1, round(32 * self.width))
            x = self._stem(x, "1a", half, 3, stride=2, train=train)
            x = self._stem(x, "1b", half, 3, train=train)
            x = self._stem(x, "1", channels, 3, train=train)
        else:
            x = self._stem(x, "1", channels, 7, stride=2, train=train)
        x = max_pool_3x3(x)
        features = {}
        for stage in range(2, self.last_stage + 1):
            x = features[stage] = self._stage(x, stage, train)
        return features

    def _stem(
        self,
        x: Array,
        name: str,
        channels: int,
        kernel_size: int,
        *,
        train: bool,
        stride: int = 1,
    ) -> Array:
        conv = SameConv(
            channels,
            kernel_size,
            self.dtype,
            stride=stride,
            use_bias=not self.v15,
            name=f"conv{name}",
        )
        norm = batch_norm(
            self.freeze_batch_norm,
            epsilon=self.batch_norm_epsilon,
            dtype=self.dtype,
            negative_slope=0.0,
            name=f"bn{name}",
        )
        return normalized_conv(conv, norm, x, train=train)

    def _stage(self, x: Array, stage: int, train: bool) -> Array:
        block = nn.remat(Bottleneck, static_argnums=(2,)) if self.remat else Bottleneck
        stride = 2 if 2 < stage and 2**stage <= self.output_stride else 1
        # In v1.5, the 3x3 that would have a stride still has the dilation before it, as
        # in torchvision and timm. The features of all output strides are then the same
        # at the positions that they have in common.
        dilation_before = max(1, 2 ** (stage - 1) // self.output_stride)
        dilation = max(1, 2**stage // self.output_stride)
        # As in timm, which averages with stride 1 where a stage is dilated.
        pooled = stride if self.variant_d and (stride, dilation) != (1, 1) else 0
        for j in range(1, self.blocks[stage - 2] + 1):
            first = j == 1
            x = block(
                channels=round(CHANNELS[stage - 2] * self.width),
                stride=stride if first else 1,
                dilation=dilation_before if self.v15 and first else dilation,
                stride_in_3x3=self.v15,
                project=first,
                conv_bias=not self.v15,
                batch_norm_epsilon=self.batch_norm_epsilon,
                dtype=self.dtype,
                freeze_batch_norm=self.freeze_batch_norm,
                pool_shortcut=pooled if first else 0,
                name=f"stage{stage}_block{j}",
            )(x, train)
        return x
