"""L_seg with class weights, and over the hardest pixels only (OHEM)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from tempseg_jax.types import IGNORE_LABEL, Scalar


def balanced_cross_entropy(
    logits: Float[Array, "b h w k"],
    labels: Integer[Array, "b h w"],
    *,
    temperature: Scalar,
    smoothing: Scalar,
    class_weights: Float[Array, "k"] | Scalar,
    hard_pixels: float,
) -> Float[Array, ""]:
    """Σ w_y l / Σ w_y over pixels of class y and loss l, as PyTorch defines the mean.

    With weights of 1 and all pixels it is `losses.smoothed_cross_entropy`. With other
    weights and ε > 0 it is not PyTorch's loss, where each class of the uniform part of
    the target has its own weight: here w_y is the weight of the pixel.

    Args:
        logits: Output of the segmenter, not divided by a temperature.
        labels: Void pixels are not counted.
        temperature: T_G in L_seg.
        smoothing: ε: the target is (1 - ε) X + ε / k.
        class_weights: w; a scalar is the weight of every class.
        hard_pixels: The fraction of the scored pixels of each image that count: those
            with the largest l (Shrivastava et al. 2016); at least one pixel.
    """
    log_p = jax.nn.log_softmax(logits / temperature)
    scored = labels != IGNORE_LABEL
    chosen = jnp.where(scored, labels, 0).astype(jnp.int32)
    own = -jnp.take_along_axis(log_p, chosen[..., None], axis=-1)[..., 0]
    nats = (1 - smoothing) * own - smoothing * jnp.mean(log_p, axis=-1)
    by_class = jnp.broadcast_to(jnp.asarray(class_weights), logits.shape[-1:])
    weights = jnp.where(scored, by_class[chosen], 0)
    if hard_pixels < 1:
        weights = weights * _hardest(nats, scored, hard_pixels)
    total = jnp.sum(weights)
    return jnp.sum(weights * nats) / jnp.where(total > 0, total, 1)


def _hardest(nats: Array, scored: Array, fraction: float) -> Array:
    """Mark the hardest scored pixels of each image, and all that equal the last one."""
    nats = jax.lax.stop_gradient(jnp.where(scored, nats, -jnp.inf))
    count = jnp.ceil(fraction * jnp.sum(scored, axis=(1, 2))).astype(jnp.int32)
    descending = -jnp.sort(-nats.reshape(len(nats), -1), axis=1)
    last = jnp.maximum(count - 1, 0)[:, None]
    bound = jnp.take_along_axis(descending, last, axis=1)[..., None]
    return scored & (nats >= bound)
