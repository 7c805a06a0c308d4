"""The head of the paper's ResNet-50: one 1x1 convolution."""

import flax.linen as nn
from jaxtyping import Array, Float

from tempseg_jax.models.heads.base import Head


class ScoreHead(Head):
    """Scores of the last stage's features."""

    @nn.compact
    def __call__(
        self, features: dict[int, Float[Array, "b _ _ _"]], *, train: bool
    ) -> Float[Array, "b h w {self.num_classes}"]:
        """Return scores at the output stride."""
        x = self.drop(features[max(features)], train=train)
        return self.score(x, "score", train=train)
