"""DeepLabV3+ (Chen et al. 2018): the pyramid, and a decoder at stride 4."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from tempseg_jax.models.heads.aspp import RATES, pyramid
from tempseg_jax.models.heads.base import Head
from tempseg_jax.models.layers import upsample_bilinear


class DeepLabV3PlusHead(Head):
    """Join the enlarged pyramid with 48 channels of stage 2 (section 3.1).

    The convolutions are not separable, as with the paper's ResNet-101. The dropout is
    that of mmsegmentation.
    """

    output_strides: ClassVar[tuple[int, ...]] = tuple(RATES)

    dropout: float = 0.1  # rate of the dropout before the scores, in training

    @property
    def stride(self) -> int:
        """Input pixels per score: the stride of stage 2."""
        return 4

    @nn.compact
    def __call__(
        self, features: dict[int, Float[Array, "b _ _ _"]], *, train: bool
    ) -> Float[Array, "b h w {self.num_classes}"]:
        """Return scores at stride 4."""
        coarse = pyramid(self, features[max(features)], train=train)
        coarse = upsample_bilinear(coarse, factor=self.output_stride // self.stride)
        fine = self.conv(features[2], "_low", self.channels(48), 1, train=train)
        x = jnp.concatenate([coarse, fine], axis=-1)
        for name in ("_fused1", "_fused2"):
            x = self.conv(x, name, self.channels(256), 3, train=train)
        x = self.drop(x, train=train)
        return self.score(x, "score", train=train)
