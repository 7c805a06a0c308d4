"""ResNet-50 (He et al. 2016) with 1x1 class scores, upsampled by 32 or by 16."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from tempseg_jax.models.batch_norm import BatchNorm, normalized_conv
from tempseg_jax.models.frozen_batch_norm import FrozenBatchNorm
from tempseg_jax.models.layers import (
    normalize_and_pad,
    score_layer,
    upsample_bilinear,
)
from tempseg_jax.models.ops import SameConv, max_pool_3x3, relu
from tempseg_jax.models.preprocessing import Preprocessing

STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
"""Blocks and inner channels of each stage; its output has four times the channels."""


def batch_norm(freeze: str, *, negative_slope: float | None, **options) -> nn.Module:
    """Return the layer that a value of `model.freeze_batch_norm` stands for."""
    if freeze == "none":
        return BatchNorm(negative_slope=negative_slope, **options)
    train_scale = freeze == "statistics"
    return FrozenBatchNorm(
        train_scale=train_scale, negative_slope=negative_slope, **options
    )


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions, each followed by BatchNorm."""

    channels: int
    stride: int
    stride_in_3x3: bool  # True: stride in the 3x3 (v1.5); False: in the first 1x1 (v1)
    project: bool  # whether the shortcut is a 1x1 convolution, as in a first block
    conv_bias: bool
    batch_norm_epsilon: float
    dtype: DTypeLike
    freeze_batch_norm: str = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool
    ) -> Float[Array, "b h_out w_out d"]:
        """Return ReLU(shortcut + residual).

        `train` is positional because `nn.remat` takes static arguments by position.
        """

        def layer(
            x: Array, i: int, channels: int, kernel_size: int, **options
        ) -> Array:
            """Apply the i-th convolution and its BatchNorm."""
            slope = options.pop("negative_slope", None)
            conv = SameConv(
                channels,
                kernel_size,
                self.dtype,
                use_bias=self.conv_bias,
                name=f"conv{i}",
                **options,
            )
            norm = batch_norm(
                self.freeze_batch_norm,
                epsilon=self.batch_norm_epsilon,
                dtype=self.dtype,
                negative_slope=slope,
                name=f"bn{i}",
            )
            return normalized_conv(conv, norm, x, train=train)

        first, middle = (1, self.stride) if self.stride_in_3x3 else (self.stride, 1)
        y = layer(x, 1, self.channels, 1, stride=first, negative_slope=0.0)
        y = layer(y, 2, self.channels, 3, stride=middle, negative_slope=0.0)
        y = layer(y, 3, 4 * self.channels, 1)
        if self.project:
            x = layer(x, 0, 4 * self.channels, 1, stride=self.stride)
        return relu(x + y)


class ResNet50(nn.Module):
    """ResNet-50 v1 as in Keras, or v1.5 as in torchvision and timm.

    In v1 the convolutions have biases and the stride is in the first 1x1 of a block; in
    v1.5 they have no biases and the stride is in the 3x3. The stage s, counted from 2
    as in Keras, has features at stride 2^s.
    """

    num_classes: int  # without the ignore label
    preprocessing: Preprocessing
    v15: bool  # v1.5 (True) or v1 (False)
    width: float  # multiplies every channel count; 1 is the published network
    dtype: DTypeLike  # of the convolutions; parameters, statistics, logits: float32
    remat: bool  # recompute each block's activations in the backward pass
    last_stage: int = 5  # whose features are scored; 4: without stage 5 (C4)
    freeze_batch_norm: str = "none"  # one of FREEZE_BATCH_NORM
    dropout: float = 0.0  # rate of the dropout before the score, in training
    drop_connect: float = 0.0  # rate of DropConnect in the score layer

    @property
    def output_stride(self) -> int:
        """Input pixels per score, in each direction."""
        return 2**self.last_stage

    @nn.compact
    def __call__(
        self, image: UInt8[Array, "b h w 3"], *, train: bool
    ) -> Float[Array, "b h w {self.num_classes}"]:
        """Return float32 logits, not divided by a temperature: the losses do that."""
        h, w = image.shape[1:3]
        epsilon = self.preprocessing.batch_norm_epsilon
        x = normalize_and_pad(
            image, self.preprocessing, multiple=self.output_stride, dtype=self.dtype
        )
        conv = SameConv(
            round(64 * self.width),
            7,
            self.dtype,
            stride=2,
            use_bias=not self.v15,
            name="conv1",
        )
        norm = batch_norm(
            self.freeze_batch_norm,
            epsilon=epsilon,
            dtype=self.dtype,
            negative_slope=0.0,
            name="bn1",
        )
        x = max_pool_3x3(normalized_conv(conv, norm, x, train=train))
        block = nn.remat(Bottleneck, static_argnums=(2,)) if self.remat else Bottleneck
        for i, (blocks, channels) in enumerate(STAGES[: self.last_stage - 1], 2):
            for j in range(1, blocks + 1):
                x = block(
                    round(channels * self.width),
                    stride=2 if i > 2 and j == 1 else 1,
                    stride_in_3x3=self.v15,
                    project=j == 1,
                    conv_bias=not self.v15,
                    batch_norm_epsilon=epsilon,
                    dtype=self.dtype,
                    freeze_batch_norm=self.freeze_batch_norm,
                    name=f"stage{i}_block{j}",
                )(x, train)
        self.sow("intermediates", "features", x)  # for distillation
        if self.dropout:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = score_layer(
            self.num_classes,
            dtype=self.dtype,
            drop_connect=self.drop_connect,
            train=train,
            name="score",
        )(x)
        logits = upsample_bilinear(logits, factor=self.output_stride)
        return logits[:, :h, :w].astype(jnp.float32)
