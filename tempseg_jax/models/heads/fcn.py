"""The FCN head of torchvision and mmsegmentation, also used as the auxiliary head."""

import flax.linen as nn
from jaxtyping import Array, Float

from tempseg_jax.models.heads.base import Head


class FCNHead(Head):
    """A 3x3 convolution to a quarter of the channels, then scores."""

    dropout: float = 0.1  # rate of the dropout before the scores, in training

    @nn.compact
    def __call__(
        self, features: dict[int, Float[Array, "b _ _ _"]], *, train: bool
    ) -> Float[Array, "b h w {self.num_classes}"]:
        """Return scores at the output stride."""
        x = features[max(features)]
        x = self.conv(x, "1", max(1, x.shape[-1] // 4), 3, train=train)
        x = self.drop(x, train=train)
        return self.score(x, "score", train=train)
