"""DropConnect (Wan et al. 2013): a convolution whose kernel has random zeros."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.ops import add_bias, relu
from tempseg_jax.models.ops.convolution import same_conv


class DropConnectConv(nn.Module):
    """`SameConv`, with each weight of the kernel dropped at random in training.

    Kept weights are divided by 1 - rate, so that the mean over masks is the convolution
    with the kernel. Wan et al. draw a mask for each example. Here all images of a
    batch, and all pixels, share one: fc6 of VGG-16 has a hundred million weights.

    In inference the input of the activation is taken to be normal, with the mean and
    the variance over masks, as in section 3.2 of the paper. The paper averages the
    activation over samples of it; for a ReLU the mean has a closed form, which is used.
    """

    channels: int
    kernel_size: int
    dtype: DTypeLike
    rate: float
    activate: bool  # whether a ReLU follows
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b h w d"]:
        """Return the activation; training needs an rng named "dropout"."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        if train:
            # At step 0 this key is the initializer's (`state.py`): without `fold_in`,
            # mask and kernel would be drawn from the same numbers.
            key = jax.random.fold_in(self.make_rng("dropout"), 1)
            kept = jax.random.bernoulli(key, 1 - self.rate, shape)
            kernel = jnp.where(kept, kernel / (1 - self.rate), 0)
        mean = add_bias(_conv(x, kernel, self.dtype), bias)
        if not self.activate:
            return mean
        if train:
            return relu(mean)
        spread = self.rate / (1 - self.rate)
        # In float32: in float16 the square of a feature above 255 is infinite.
        squares = jnp.square(x.astype(jnp.float32)), jnp.square(kernel)
        variance = spread * _conv(*squares, jnp.float32)
        return mean_relu(mean.astype(jnp.float32), variance).astype(self.dtype)


def _conv(x: Array, kernel: Array, dtype: DTypeLike) -> Array:
    return same_conv(x.astype(dtype), kernel.astype(dtype), stride=1)


def mean_relu(
    mean: Float[Array, "*b"], variance: Float[Array, "*b"]
) -> Float[Array, "*b"]:
    """Return E max(0, u) for a normal u: μ Φ(μ / σ) + σ φ(μ / σ)."""
    sigma = jnp.sqrt(jnp.maximum(variance, 1e-12))
    z = mean / sigma
    return mean * jax.scipy.stats.norm.cdf(z) + sigma * jax.scipy.stats.norm.pdf(z)
