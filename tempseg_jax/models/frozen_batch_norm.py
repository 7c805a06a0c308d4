"""BatchNorm that normalizes by its running statistics in training as well."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.batch_norm import BatchNorm, activate

FREEZE_BATCH_NORM = ("none", "statistics", "all")
"""The values of `model.freeze_batch_norm`."""


class FrozenBatchNorm(nn.Module):
    """An affine transformation with the variables of `nn.BatchNorm`.

    The running statistics are those of the weight file, and no step changes them. The
    output of an image does not depend on the other images of its batch.
    """

    epsilon: float
    train_scale: bool  # whether scale and shift are trained
    dtype: DTypeLike  # of the output; the factors are computed in float32
    negative_slope: float | None  # as in `BatchNorm`

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        train: bool,
        shift: Float[Array, "c"] | None = None,
    ) -> Float[Array, "b h w c"]:
        """Return (x + shift - mean) / sqrt(var + epsilon) * scale + bias, activated.

        Args:
            x: Features.
            train: Ignored; `BatchNorm` needs it.
            shift: The bias of the convolution before; it is trained.
        """
        del train
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape).value
        var = self.variable("batch_stats", "var", jnp.ones, shape).value
        scale = jnp.asarray(self.param("scale", nn.initializers.ones, shape))
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, shape))
        if not self.train_scale:
            scale, bias = jax.lax.stop_gradient((scale, bias))
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        mean = mean if shift is None else mean - shift
        constant = bias - mean * factor
        y = x * factor[None, None, None] + constant[None, None, None]
        return activate(y.astype(self.dtype), self.negative_slope)


def batch_norm(freeze: str, *, negative_slope: float | None, **options) -> nn.Module:
    """Return the layer that a value of `model.freeze_batch_norm` stands for."""
    if freeze == "none":
        return BatchNorm(negative_slope=negative_slope, **options)
    train_scale = freeze == "statistics"
    return FrozenBatchNorm(
        train_scale=train_scale, negative_slope=negative_slope, **options
    )
