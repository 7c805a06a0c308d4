"""The DCGAN discriminator (Radford et al. 2016) over maps of class probabilities."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.batch_norm import BatchNorm, normalized_conv
from tempseg_jax.models.ops import HalvingConv

CHANNELS = (64, 128, 256, 512)


class Discriminator(nn.Module):
    """Five 4x4 convolutions of stride 2, BatchNorm and LeakyReLU after four of them."""

    dtype: DTypeLike  # of the convolutions; parameters and outputs are float32

    @nn.compact
    def __call__(
        self,
        probabilities: Float[Array, "b h w k"],
        *,
        train: bool,
    ) -> Float[Array, "b h_out w_out 1"]:
        """Return a map of linear scores, high where the input looks real."""
        x = probabilities.astype(self.dtype)
        for i, channels in enumerate(CHANNELS, start=1):
            conv = HalvingConv(channels, self.dtype, name=f"conv{i}")
            norm = BatchNorm(1e-5, self.dtype, negative_slope=0.2, name=f"bn{i}")
            x = normalized_conv(conv, norm, x, train=train)
        score = HalvingConv(1, self.dtype, name="conv5")(x)
        return score.astype(jnp.float32)
