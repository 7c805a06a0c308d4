"""Atrous spatial pyramid pooling: DeepLabV3 (Chen et al. 2017), as in torchvision."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from tempseg_jax.models.heads.base import Head

RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
"""Dilation of the three 3x3 convolutions, by output stride (section 4.1)."""


def pyramid(
    head: Head, x: Float[Array, "b h w c"], *, train: bool
) -> Float[Array, "b h w d"]:
    """Concatenate five branches and reduce them by a 1x1 convolution.

    The branches are a 1x1 convolution, three dilated 3x3 convolutions, and the mean
    over all positions. The layers are the head's.
    """
    channels = head.channels(256)
    branches = [head.conv(x, "_1x1", channels, 1, train=train)]
    for i, rate in enumerate(RATES[head.output_stride], start=1):
        name = f"_dilated{i}"
        branches.append(head.conv(x, name, channels, 3, train=train, dilation=rate))
    # Positions of the padding count too, as in torchvision.
    mean = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32).astype(x.dtype)
    pooled = head.conv(mean, "_pooled", channels, 1, train=train)
    branches.append(jnp.broadcast_to(pooled, branches[0].shape))
    joined = jnp.concatenate(branches, axis=-1)
    return head.conv(joined, "_projection", channels, 1, train=train)


class ASPPHead(Head):
    """The pyramid, dropout, a 3x3 convolution and scores."""

    output_strides: ClassVar[tuple[int, ...]] = tuple(RATES)

    dropout: float = 0.5  # rate of the dropout after the pyramid, in training

    @nn.compact
    def __call__(
        self, features: dict[int, Float[Array, "b _ _ _"]], *, train: bool
    ) -> Float[Array, "b h w {self.num_classes}"]:
        """Return scores at the output stride."""
        x = pyramid(self, features[max(features)], train=train)
        x = self.drop(x, train=train)
        x = self.conv(x, "_3x3", self.channels(256), 3, train=train)
        return self.score(x, "score", train=train)
