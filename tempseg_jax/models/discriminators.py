"""Discriminators over maps of class probabilities."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.batch_norm import BatchNorm, normalized_conv
from tempseg_jax.models.layers import upsample_bilinear
from tempseg_jax.models.ops import HalvingConv

CHANNELS = (64, 128, 256, 512)
"""Output channels of the hidden convolutions of all of them."""

SLOPE = 0.2
"""Slope of LeakyReLU below zero (Radford et al. 2016)."""


class DCGANDiscriminator(nn.Module):
    """Five 4x4 convolutions of stride 2, BatchNorm and LeakyReLU after four of them.

    The discriminator of DCGAN (Radford et al. 2016) and of the paper.
    """

    dtype: DTypeLike  # of the convolutions; parameters and outputs are float32
    channels: tuple[int, ...] = CHANNELS

    @nn.compact
    def __call__(
        self,
        probabilities: Float[Array, "b h w k"],
        *,
        train: bool,
    ) -> Float[Array, "b h_out w_out 1"]:
        """Return a map of linear scores, high where the input looks real."""
        x = probabilities.astype(self.dtype)
        for i, channels in enumerate(self.channels, start=1):
            conv = HalvingConv(channels, self.dtype, name=f"conv{i}")
            norm = BatchNorm(1e-5, self.dtype, negative_slope=SLOPE, name=f"bn{i}")
            x = normalized_conv(conv, norm, x, train=train)
        score = HalvingConv(1, self.dtype, name="conv5")(x)
        return score.astype(jnp.float32)


class SpectralNormDiscriminator(nn.Module):
    """The DCGAN discriminator with spectral normalization (Miyato et al. 2018).

    Every kernel is divided by its largest singular value, which one step of power
    iteration estimates in each forward pass, with the kernel as a matrix of one column
    for each output channel. The vectors of the iteration are in `batch_stats`.
    """

    dtype: DTypeLike  # of the convolutions; parameters and outputs are float32
    channels: tuple[int, ...] = CHANNELS

    @nn.compact
    def __call__(
        self,
        probabilities: Float[Array, "b h w k"],
        *,
        train: bool,
    ) -> Float[Array, "b h_out w_out 1"]:
        """Return a map of linear scores, high where the input looks real."""
        x = probabilities.astype(self.dtype)
        for i, channels in enumerate((*self.channels, 1), start=1):
            conv = HalvingConv(channels, self.dtype, name=f"conv{i}")
            x = nn.SpectralNorm(conv, name=f"sn{i}")(x, update_stats=train)
            if i <= len(self.channels):
                x = nn.leaky_relu(x, SLOPE)
        return x.astype(jnp.float32)


class LayerNormDiscriminator(nn.Module):
    """The DCGAN discriminator with layer normalization (Gulrajani et al. 2017).

    Unlike with BatchNorm, the score of an image does not depend on the other images of
    the batch, which a gradient penalty needs.
    The mean and the variance are those of all pixels and channels of an image. The last
    kernel starts at zero: normalized features have a steep gradient, and the penalty of
    `wgan_gp` would start at 1e5 with a random one.
    """

    dtype: DTypeLike  # of the convolutions; parameters and outputs are float32
    channels: tuple[int, ...] = CHANNELS

    @nn.compact
    def __call__(
        self,
        probabilities: Float[Array, "b h w k"],
        *,
        train: bool,
    ) -> Float[Array, "b h_out w_out 1"]:
        """Return a map of linear scores, high where the input looks real."""
        del train
        x = probabilities.astype(self.dtype)
        for i, channels in enumerate(self.channels, start=1):
            x = HalvingConv(channels, self.dtype, name=f"conv{i}")(x)
            # One group of all channels is layer normalization.
            x = nn.GroupNorm(num_groups=1, dtype=self.dtype, name=f"ln{i}")(x)
            x = nn.leaky_relu(x, SLOPE)
        zeros = nn.initializers.zeros
        score = HalvingConv(1, self.dtype, kernel_init=zeros, name="conv5")(x)
        return score.astype(jnp.float32)


class FullyConvolutionalDiscriminator(nn.Module):
    """Five convolutions without normalization: a confidence for each pixel.

    The discriminator of Hung et al. 2018, whose scores are upsampled to the size of the
    input.
    """

    dtype: DTypeLike  # of the convolutions; parameters and outputs are float32
    channels: tuple[int, ...] = CHANNELS

    @nn.compact
    def __call__(
        self,
        probabilities: Float[Array, "b h w k"],
        *,
        train: bool,
    ) -> Float[Array, "b h w 1"]:
        """Return a linear score for each pixel, high where the input looks real."""
        del train
        h, w = probabilities.shape[1:3]
        x = probabilities.astype(self.dtype)
        for i, channels in enumerate(self.channels, start=1):
            x = HalvingConv(channels, self.dtype, name=f"conv{i}")(x)
            x = nn.leaky_relu(x, SLOPE)
        x = HalvingConv(1, self.dtype, name="conv5")(x)
        score = upsample_bilinear(x, factor=2 ** (len(self.channels) + 1))
        return score[:, :h, :w].astype(jnp.float32)
