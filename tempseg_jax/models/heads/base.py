"""The fields that all heads have, and the layers that they share."""

from typing import ClassVar

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.batch_norm import BatchNorm, normalized_conv
from tempseg_jax.models.layers import score_layer
from tempseg_jax.models.ops import SameConv

EPSILON = 1e-5
"""Of BatchNorm in heads, as in torchvision; that of a backbone is its weights' own."""


class Head(nn.Module):
    """From {stage: features} to class scores."""

    output_strides: ClassVar[tuple[int, ...]] = (32, 16, 8)  # that it can be used at

    num_classes: int  # without the ignore label
    output_stride: int  # input pixels per feature of the last stage
    width: float  # multiplies every channel count; 1 is the published network
    dtype: DTypeLike  # of the convolutions and the scores
    dropout: float = 0.0  # rate, in training
    drop_connect: float = 0.0  # rate of DropConnect in the score layers

    @property
    def stride(self) -> int:
        """Input pixels per score, in each direction."""
        return self.output_stride

    def channels(self, published: int) -> int:
        """Return a number of channels, multiplied by `width`."""
        return max(1, round(published * self.width))

    def conv(
        self,
        x: Float[Array, "b h w c"],
        name: str,
        channels: int,
        kernel_size: int,
        *,
        train: bool,
        dilation: int = 1,
    ) -> Float[Array, "b h w d"]:
        """Apply the convolution conv<name> without a bias, BatchNorm and a ReLU."""
        conv = SameConv(
            channels,
            kernel_size,
            self.dtype,
            use_bias=False,
            dilation=dilation,
            name=f"conv{name}",
        )
        norm = BatchNorm(EPSILON, self.dtype, negative_slope=0.0, name=f"bn{name}")
        return normalized_conv(conv, norm, x, train=train)

    def score(
        self, x: Float[Array, "b h w c"], name: str, *, train: bool
    ) -> Float[Array, "b h w {self.num_classes}"]:
        """Score features; these names start with "score", see `optim.head_mask`."""
        layer = score_layer(
            self.num_classes,
            dtype=self.dtype,
            drop_connect=self.drop_connect,
            train=train,
            name=name,
        )
        return layer(x)

    def drop(self, x: Float[Array, "*b c"], *, train: bool) -> Float[Array, "*b c"]:
        """Apply dropout, in training."""
        if not self.dropout:
            return x
        return nn.Dropout(self.dropout, deterministic=not train)(x)
