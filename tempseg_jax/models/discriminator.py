"""The DCGAN discriminator (Radford et al. 2016) over maps of class probabilities."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

CHANNELS = (64, 128, 256, 512)


class Discriminator(nn.Module):
    """Five 4x4 convolutions of stride 2; BatchNorm and LeakyReLU on the hidden four."""

    dtype: DTypeLike  # of the convolutions; parameters and outputs are float32

    @nn.compact
    def __call__(
        self, probabilities: Float[Array, "b h w k"], *, train: bool
    ) -> Float[Array, "b h_out w_out 1"]:
        """Return a map of linear scores, high where the input looks like a label."""
        init = nn.initializers.normal(0.02)
        x = probabilities.astype(self.dtype)
        for i, channels in enumerate(CHANNELS, start=1):
            x = nn.Conv(
                channels,
                (4, 4),
                strides=2,
                dtype=self.dtype,
                kernel_init=init,
                name=f"conv{i}",
            )(x)
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                dtype=self.dtype,
                name=f"bn{i}",
            )(x)
            x = nn.leaky_relu(x, 0.2)
        score = nn.Conv(
            1, (4, 4), strides=2, dtype=self.dtype, kernel_init=init, name="conv5"
        )
        return score(x).astype(jnp.float32)
