"""FCN-8s (Long, Shelhamer & Darrell 2015)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from tempseg_jax.models.layers import (
    LearnedUpsample,
    normalize_and_pad,
    score_layer,
    upsample_bilinear,
)
from tempseg_jax.models.preprocessing import Preprocessing


class FCN8s(nn.Module):
    """Score features at strides 32, 16 and 8, add coarse to fine, upsample by 8."""

    backbone: nn.Module  # image -> {stride: features}
    num_classes: int  # without the ignore label
    preprocessing: Preprocessing
    dtype: DTypeLike  # of the convolutions; parameters and logits are float32
    drop_connect: float = 0.0  # rate of DropConnect in the score layers

    @nn.compact
    def __call__(
        self, image: UInt8[Array, "b h w 3"], *, train: bool
    ) -> Float[Array, "b h w {self.num_classes}"]:
        """Return float32 logits, not divided by a temperature: the losses do that."""
        h, w = image.shape[1:3]
        x = normalize_and_pad(image, self.preprocessing, multiple=32, dtype=self.dtype)
        features = self.backbone(x, train=train)
        self.sow("intermediates", "features", features[32])  # for distillation

        def score(x: Array, name: str) -> Array:
            layer = score_layer(
                self.num_classes,
                dtype=self.dtype,
                drop_connect=self.drop_connect,
                train=train,
                name=name,
            )
            return layer(x)

        logits = score(features[32], "score_fc7")
        logits = upsample_bilinear(logits, factor=2)
        logits = upsample_bilinear(
            logits + score(features[16], "score_pool4"), factor=2
        )
        logits = logits + score(features[8], "score_pool3")
        # A prediction is the largest logit, and logits of 16 bits are often equal.
        wide = self.dtype if train else jnp.float32
        logits = LearnedUpsample(stride=8, dtype=wide, name="upsample8")(logits)
        return logits[:, :h, :w].astype(jnp.float32)
