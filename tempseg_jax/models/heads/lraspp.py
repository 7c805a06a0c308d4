"""Lite R-ASPP (Howard et al. 2019, section 6.4), as in torchvision."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tempseg_jax.models.heads.base import Head
from tempseg_jax.models.layers import upsample_bilinear
from tempseg_jax.models.ops import SameConv


class LRASPPHead(Head):
    """Weight the last features by their mean, and add scores of stage 3."""

    @property
    def stride(self) -> int:
        """Input pixels per score: the stride of stage 3."""
        return 8

    @nn.compact
    def __call__(
        self, features: dict[int, Float[Array, "b _ _ _"]], *, train: bool
    ) -> Float[Array, "b h w {self.num_classes}"]:
        """Return scores at stride 8."""
        low, high = features[3], features[max(features)]
        channels = self.channels(128)
        x = self.conv(high, "1", channels, 1, train=train)
        mean = jnp.mean(high, axis=(1, 2), keepdims=True, dtype=jnp.float32)
        gate = SameConv(channels, 1, self.dtype, use_bias=False, name="gate")
        x = x * jax.nn.sigmoid(gate(mean.astype(high.dtype)))
        x = upsample_bilinear(x, factor=self.output_stride // self.stride)
        x = self.drop(x, train=train)
        fine = self.score(low, "score_low", train=train)
        return fine + self.score(x, "score_high", train=train)
