"""BatchNorm with an activation, and a gradient written for few passes over memory."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def normalized_conv(
    conv: nn.Module, norm: nn.Module, x: Float[Array, "b h w c"], *, train: bool
) -> Float[Array, "b h_out w_out d"]:
    """Return norm(conv(x)), without adding the convolution's bias to every pixel.

    Args:
        conv: A `SameConv`, `HalvingConv` or `DepthwiseConv`, with or without a bias.
        norm: The layer after it: a `BatchNorm` or a `FrozenBatchNorm`.
        x: Input of the convolution.
        train: Whether to use the statistics of the batch, or the running ones.
    """
    y = conv(x, leave_out_bias=True)
    bias = conv.variables["params"].get("bias")
    return norm(y, shift=None if bias is None else jnp.asarray(bias), train=train)


class BatchNorm(nn.Module):
    """`nn.BatchNorm`, followed by a ReLU or a LeakyReLU.

    Parameters, running statistics and results are those of `nn.BatchNorm`. In training,
    its gradient reads the input and the gradient of the output twice, once for two sums
    and once for the result: the derivative of `nn.BatchNorm` that JAX finds has more
    sums, and stores arrays between them.
    """

    epsilon: float
    dtype: DTypeLike  # of the result; statistics and parameters are float32
    negative_slope: float | None  # 0: ReLU; above 0: LeakyReLU; None: no activation
    momentum: float = 0.9  # share of the old running statistics in the new ones

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        train: bool,
        shift: Float[Array, "c"] | None = None,
    ) -> Float[Array, "b h w c"]:
        """Normalize x + shift.

        Args:
            x: Features.
            train: Whether to use the statistics of the batch, or the running ones.
            shift: A bias of the layer before, which the mean of a batch cancels: it has
                no gradient then, and moves the running mean alone.
        """
        shape = x.shape[-1:]
        scale = jnp.asarray(self.param("scale", nn.initializers.ones, shape))
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, shape))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            mean, var = running_mean.value, running_var.value
            mean = mean if shift is None else mean - shift
            z = _affine(x, mean, jax.lax.rsqrt(var + self.epsilon), scale, bias)
            return activate(z.astype(self.dtype), self.negative_slope)
        y, mean, var = normalize_by_batch(
            self.epsilon, self.negative_slope, self.dtype, x, scale, bias
        )
        if not self.is_initializing():
            mean = mean if shift is None else mean + shift
            for running, new in ((running_mean, mean), (running_var, var)):
                old = self.momentum * running.value
                running.value = old + (1 - self.momentum) * new
        return y


def _channels(x: Float[Array, "c"]) -> Float[Array, "1 1 1 c"]:
    return x[None, None, None]


def _affine(
    x: Array, mean: Array, inverse_std: Array, scale: Array, bias: Array
) -> Array:
    return (x - _channels(mean)) * _channels(inverse_std * scale) + _channels(bias)


def activate(
    z: Float[Array, "b h w c"], negative_slope: float | None
) -> Float[Array, "b h w c"]:
    """Apply a ReLU (slope 0), a LeakyReLU, or nothing (None)."""
    if negative_slope is None:
        return z
    return jnp.where(z > 0, z, jnp.asarray(negative_slope, z.dtype) * z)


def _pixels(x: Array) -> int:
    """Return the number of pixels of all images."""
    return x.shape[0] * x.shape[1] * x.shape[2]


def _two_sums(a: Array, b: Array) -> Float[Array, "2 c"]:
    """Sum both arrays over all images and pixels.

    The sums of rows are added together in one kernel and, on several devices, in one
    all-reduce.
    """
    rows = jnp.stack([jnp.sum(a, axis=2), jnp.sum(b, axis=2)])
    return jnp.sum(rows, axis=(1, 2))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def normalize_by_batch(
    epsilon: float,
    negative_slope: float | None,
    dtype: DTypeLike,
    x: Float[Array, "b h w c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
) -> tuple[Float[Array, "b h w c"], Float[Array, "c"], Float[Array, "c"]]:
    """Return the activated result, and the batch's mean and (biased) variance.

    No gradient passes through the mean and the variance that are returned.
    """
    return _forward(epsilon, negative_slope, dtype, x, scale, bias)[0]


def _forward(epsilon, negative_slope, dtype, x, scale, bias) -> tuple:
    wide = x.astype(scale.dtype)  # sums of 16-bit values are inexact
    sums, pixels = _two_sums(wide, wide**2), _pixels(x)
    mean = sums[0] / pixels
    var = jnp.maximum(sums[1] / pixels - mean**2, 0)  # rounding could be negative
    inverse_std = jax.lax.rsqrt(var + epsilon)
    z = _affine(wide, mean, inverse_std, scale, bias)
    y = activate(z.astype(dtype), negative_slope)
    return (y, mean, var), (x, scale, bias, mean, inverse_std)


def _backward(epsilon, negative_slope, dtype, residuals, gradients) -> tuple:
    x, scale, bias, mean, inverse_std = residuals
    wide, g = x.astype(scale.dtype), gradients[0].astype(scale.dtype)
    if negative_slope is not None:
        # From x, which is read anyway, and not from y.
        z = _affine(wide, mean, inverse_std, scale, bias)
        g = jnp.where(z > 0, g, negative_slope * g)
    normalized = (wide - _channels(mean)) * _channels(inverse_std)
    g_sum, g_product = _two_sums(g, g * normalized)
    through_statistics = _channels(g_sum) + normalized * _channels(g_product)
    through_statistics /= _pixels(x)
    x_gradient = (g - through_statistics) * _channels(scale * inverse_std)
    return x_gradient.astype(x.dtype), g_product, g_sum


normalize_by_batch.defvjp(_forward, _backward)
