"""Equations 1 to 5 of the paper in float32, the adversaries, and the objective."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Num, PRNGKeyArray

from tempseg_jax.types import IGNORE_LABEL, Scalar


def cross_entropy(
    logits: Float[Array, "*b k"],
    labels: Integer[Array, "*b"],
    *,
    temperature: Scalar,
) -> Float[Array, ""]:
    """Mean over scored pixels of -log softmax(logits / T)[label], in nats (eq. 1).

    Equation 1 sums over the pixels of an image; the sum diverges at the paper's
    learning rate, so this is the mean. The weight decay of equation 1 is part of the
    optimizer (optim.py). Pixels with the ignore label are not counted. The loss is 0 if
    no pixel is scored.
    """
    return _mean_nats(logits, labels, jnp.asarray(temperature, logits.dtype))


def _log_sum_exp(logits: Array, temperature: Array) -> Array:
    """Return log Σ exp(logits / T), with the maximum that all temperatures share.

    XLA computes the maximum once for L_seg, L_adv and L_D.
    """
    peak = jnp.max(logits, axis=-1, keepdims=True)
    total = jnp.sum(jnp.exp((logits - peak) / temperature), axis=-1, keepdims=True)
    return peak / temperature + jnp.log(total)


@jax.custom_vjp
def _mean_nats(logits: Array, labels: Array, temperature: Array) -> Array:
    """Compute `cross_entropy`; its gradient keeps no array of the logits' size.

    The gradient is computed from the logits, which L_adv and L_D need anyway, and from
    one logsumexp per pixel. Differentiating the gather of log softmax would keep a
    softmax and scatter into an array of zeros.
    """
    return _mean_nats_forward(logits, labels, temperature)[0]


def _mean_nats_forward(logits: Array, labels: Array, temperature: Array) -> tuple:
    scored = labels != IGNORE_LABEL
    log_sum = _log_sum_exp(logits, temperature)[..., 0]
    chosen = jnp.where(scored, labels, 0).astype(jnp.int32)[..., None]
    own = jnp.take_along_axis(logits, chosen, axis=-1)[..., 0] / temperature
    count = jnp.maximum(jnp.sum(scored), 1)
    loss = jnp.sum(log_sum - own, where=scored) / count
    return loss, (logits, labels, temperature, log_sum, count)


def _mean_nats_backward(residuals: tuple, g: Array) -> tuple[Array, None, Array]:
    logits, labels, temperature, log_sum, count = residuals
    z = logits / temperature
    weight = jnp.where(labels != IGNORE_LABEL, g / count, 0)[..., None]
    hot = one_hot(labels, num_classes=z.shape[-1])
    z_gradient = (jnp.exp(z - log_sum[..., None]) - hot) * weight
    return z_gradient / temperature, None, -jnp.sum(z_gradient * z) / temperature


_mean_nats.defvjp(_mean_nats_forward, _mean_nats_backward)


def smoothed_cross_entropy(
    logits: Float[Array, "*b k"],
    labels: Integer[Array, "*b"],
    *,
    temperature: Scalar,
    smoothing: Scalar,
) -> Float[Array, ""]:
    """`cross_entropy` with the target (1 - ε) X + ε / k (Szegedy et al. 2016).

    The mean over the scored pixels of (1 - ε) (-log p[label]) + ε mean_k (-log p[k]).
    """
    scored = labels != IGNORE_LABEL
    uniform = -jnp.mean(jax.nn.log_softmax(logits / temperature), axis=-1)
    uniform = jnp.sum(uniform, where=scored) / jnp.maximum(jnp.sum(scored), 1)
    nats = cross_entropy(logits, labels, temperature=temperature)
    return (1 - smoothing) * nats + smoothing * uniform


def probabilities(
    logits: Float[Array, "*b k"],
    *,
    temperature: Scalar,
    mask: Bool[Array, "*b"] | None,
) -> Float[Array, "*b k"]:
    """Return p = softmax(logits / T), the segmenter's output as D sees it.

    Args:
        logits: Output of the segmenter, not divided by a temperature.
        temperature: T_G for L_adv, and T_D for L_D.
        mask: Pixels that D sees; p is zero at all others. With None, D sees all pixels.
    """
    p = _softmax(logits, jnp.asarray(temperature, logits.dtype))
    return p if mask is None else p * mask[..., None]


@jax.custom_vjp
def _softmax(logits: Array, temperature: Array) -> Array:
    """Return softmax(logits / T); its gradient keeps the logits and a logsumexp."""
    return _softmax_forward(logits, temperature)[0]


def _softmax_forward(logits: Array, temperature: Array) -> tuple:
    log_sum = _log_sum_exp(logits, temperature)
    p = jnp.exp(logits / temperature - log_sum)
    return p, (logits, temperature, log_sum)


def _softmax_backward(residuals: tuple, g: Array) -> tuple[Array, Array]:
    logits, temperature, log_sum = residuals
    z = logits / temperature
    p = jnp.exp(z - log_sum)
    z_gradient = p * (g - jnp.sum(g * p, axis=-1, keepdims=True))
    return z_gradient / temperature, -jnp.sum(z_gradient * z) / temperature


_softmax.defvjp(_softmax_forward, _softmax_backward)


def one_hot(
    labels: Integer[Array, "*b"], *, num_classes: int
) -> Float[Array, "*b {num_classes}"]:
    """Return the one-hot ground truth X, which is zero at void pixels."""
    return jax.nn.one_hot(labels, num_classes)


def one_hot_with_values_of(
    p: Float[Array, "*b k"], labels: Integer[Array, "*b"]
) -> Float[Array, "*b k"]:
    """Return X with the values of p: at each pixel, the largest at the true class.

    The largest value of p and that of the true class change places. Both maps then have
    the same values at each pixel, and D cannot tell them apart by their sharpness, only
    by the classes. The result is zero at void pixels, as X is.
    """
    num_classes = p.shape[-1]
    truth = jax.nn.one_hot(labels, num_classes)
    predicted = jax.nn.one_hot(jnp.argmax(p, axis=-1), num_classes)
    difference = jnp.max(p, axis=-1) - jnp.sum(p * truth, axis=-1)
    values = p + difference[..., None] * (truth - predicted)
    return jnp.where((labels != IGNORE_LABEL)[..., None], values, 0)


REAL_MAPS = ("one_hot", "matched")
"""The values of `objective.real`."""


def visible_to_discriminator(
    labels: Integer[Array, "b h w"], labeled: Bool[Array, "b"] | None
) -> Bool[Array, "b h w"]:
    """Mark the pixels of p that D sees when void is masked.

    The one-hot ground truth is zero at void pixels. If p were not zero there too, D
    could tell the two apart by these pixels. An image without labels has no void
    pixels: D sees all of its p.
    """
    visible = labels != IGNORE_LABEL
    return visible if labeled is None else visible | ~labeled[:, None, None]


def least_squares_discriminator(
    d_real: Num[Array, "b *map"],
    d_fake: Num[Array, "b *map"],
    *,
    labeled: Bool[Array, "b"] | None = None,
) -> Float[Array, ""]:
    """½ [ E (D(X) - 1)² + E D(p_{T_D})² ] (eq. 3); 0.25 if D is 0.5 everywhere."""
    real = mean_over_labeled(jnp.square(d_real - 1), labeled)
    return (real + jnp.mean(jnp.square(d_fake))) / 2


def least_squares_segmenter(d_fake: Num[Array, "b *map"]) -> Float[Array, ""]:
    """½ E (D(p_{T_G}) - 1)² (eq. 4)."""
    return jnp.mean(jnp.square(d_fake - 1)) / 2


def minimax_discriminator(
    d_real: Num[Array, "b *map"],
    d_fake: Num[Array, "b *map"],
    *,
    labeled: Bool[Array, "b"] | None = None,
) -> Float[Array, ""]:
    """- E log σ(D(X)) - E log (1 - σ(D(p_{T_D}))), σ the sigmoid (eq. 2)."""
    real = mean_over_labeled(jax.nn.softplus(-d_real), labeled)
    return real + jnp.mean(jax.nn.softplus(d_fake))


def non_saturating_segmenter(d_fake: Num[Array, "b *map"]) -> Float[Array, ""]:
    """- E log σ(D(p_{T_G})): the segmenter's side of equation 2, without saturation.

    Minimizing E log (1 - σ(D)) has the same fixed point, but its gradient vanishes
    while D wins (Goodfellow et al. 2014, section 3). DCGAN is trained with this form.
    """
    return jnp.mean(jax.nn.softplus(-d_fake))


class DiscriminatorLoss(Protocol):
    """L_D, given D's maps over ground truth and over the segmenter's output."""

    def __call__(
        self,
        d_real: Num[Array, "b *map"],
        d_fake: Num[Array, "b *map"],
        *,
        labeled: Bool[Array, "b"] | None = None,
    ) -> Float[Array, ""]:
        """Return L_D; `d_real` is ignored for images where `labeled` is False."""


class SegmenterLoss(Protocol):
    """L_adv, given D's map over the segmenter's output."""

    def __call__(self, d_fake: Num[Array, "b *map"]) -> Float[Array, ""]:
        """Return L_adv."""


class Penalty(Protocol):
    """A term added to L_D that evaluates D itself, such as a gradient penalty."""

    def __call__(
        self,
        discriminate: Callable[[Float[Array, "b h w k"]], Num[Array, "b *map"]],
        real: Float[Array, "b h w k"],
        fake: Float[Array, "b h w k"],
        *,
        labeled: Bool[Array, "b"] | None,
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        """Return the penalty; `discriminate` maps class maps to the scores of D.

        Calling it does not update D's running statistics.
        """


class Adversary(NamedTuple):
    """The losses of both players in one adversarial objective."""

    discriminator: DiscriminatorLoss
    segmenter: SegmenterLoss
    penalty: Penalty | None = None


ADVERSARIES = {
    "lsgan": Adversary(least_squares_discriminator, least_squares_segmenter),
    "dcgan": Adversary(minimax_discriminator, non_saturating_segmenter),
}
"""The values of `objective.adversary`."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """The networks and the terms of their losses.

    Linen modules are compared and hashed by their fields, so objectives built from
    equal configs are equal.
    """

    segmenter: nn.Module
    discriminator: nn.Module | None  # None: supervised training, L_G = L_seg
    adversary: Adversary
    critic_steps: int  # updates of D per update of G
    mask_void: bool  # whether p is set to zero at void pixels before D sees it
    real: str = "one_hot"  # X as D sees it; matched: `one_hot_with_values_of` p_{T_D}
    smooth_labels: bool = False  # L_seg is the `smoothed_cross_entropy`


def mean_over_labeled(
    x: Num[Array, "b *map"], labeled: Bool[Array, "b"] | None
) -> Float[Array, ""]:
    """Return the mean over the images that have ground truth; 0 if there are none."""
    if labeled is None:
        return jnp.mean(x)
    weights = jnp.broadcast_to(labeled.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
    return jnp.sum(x, where=weights) / jnp.maximum(jnp.sum(weights), 1)
