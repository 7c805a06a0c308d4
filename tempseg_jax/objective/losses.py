"""The class maps that D sees, L_seg (eq. 1), and the objective, in float32."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from tempseg_jax.objective.adversaries import Adversary
from tempseg_jax.types import IGNORE_LABEL, Batch, Scalar


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
    return _softmax(logits, jnp.asarray(temperature, logits.dtype), mask)


@jax.custom_vjp
def _softmax(logits: Array, temperature: Array, mask: Array | None) -> Array:
    """Return softmax(logits / T); its gradient keeps the logits and a logsumexp."""
    return _softmax_forward(logits, temperature, mask)[0]


def _softmax_forward(logits: Array, temperature: Array, mask: Array | None) -> tuple:
    log_sum = _log_sum_exp(logits, temperature)
    if mask is not None:
        log_sum = jnp.where(mask[..., None], log_sum, jnp.inf)  # exp(-inf) is 0
    p = jnp.exp(logits / temperature - log_sum)
    return p, (logits, temperature, log_sum)


def _softmax_backward(residuals: tuple, g: Array) -> tuple[Array, Array, None]:
    logits, temperature, log_sum = residuals
    z = logits / temperature
    p = jnp.exp(z - log_sum)
    z_gradient = p * (g - jnp.sum(g * p, axis=-1, keepdims=True))
    return z_gradient / temperature, -jnp.sum(z_gradient * z) / temperature, None


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


REAL_MAPS = ("one_hot", "matched", "teacher")
"""The values of `objective.real`: what D sees as X.

`matched` is `one_hot_with_values_of` p_{T_D}, and `teacher` is p_{T_D} of the teacher.
"""


def visible_to_discriminator(batch: Batch) -> Bool[Array, "b h w"]:
    """Mark the pixels of p that D sees when void is masked.

    The one-hot ground truth is zero at void pixels. If p were not zero there too, D
    could tell the two apart by these pixels. An unlabeled image has no void
    pixels: D sees all of its p, but not the padding of its crop.
    """
    return batch.get("visible", batch["label"] != IGNORE_LABEL)


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
    real: str = "one_hot"  # X as D sees it, a value of REAL_MAPS
    smooth_labels: bool = False  # L_seg is the `smoothed_cross_entropy`
    conditional: bool = False  # D sees the image too (Isola et al. 2017)
    discriminator_optimizer: str = "adam"  # a key of optim.DISCRIMINATOR_OPTIMIZERS
    class_weights: bool = False  # L_seg weights the pixels of each class
    hard_pixels: float = 1.0  # the fraction of the pixels that L_seg counts
    l1: bool = False  # the segmenter's kernels have an L1 penalty
    auxiliary: bool = False  # the scores of an auxiliary head have a loss too
    scheduled_temperature: bool = False  # T_G changes in training
    teacher: nn.Module | None = None  # a trained segmenter, for distillation
    pairwise: bool = False  # distill the affinity of pairs of positions, too
    unlabeled_adversarial: bool = False  # L_adv on the unlabeled images
    self_training: bool = False  # L_semi on the unlabeled images

    @property
    def uses_unlabeled(self) -> bool:
        """Whether a term of L_G is about unlabeled images."""
        return self.unlabeled_adversarial or self.self_training

    @property
    def needs_whole_batch(self) -> bool:
        """Whether gradients summed over micro-batches are not those of the batch.

        D is updated several times against the logits of the whole batch, and the other
        terms are means over pixels whose number, or total weight, differs between
        micro-batches.
        """
        return (
            (self.discriminator is not None and self.critic_steps > 1)
            or self.class_weights
            or self.hard_pixels < 1
            or self.uses_unlabeled
        )
