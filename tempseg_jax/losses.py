"""Equations 1 to 5 of the paper, the adversaries, and the objective. All float32."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
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
    optimizer (optim.py). Pixels with the ignore label count nowhere; the loss is 0
    where no pixel is scored.
    """
    scored = labels != IGNORE_LABEL
    nats = optax.softmax_cross_entropy_with_integer_labels(
        logits / temperature, jnp.where(scored, labels, 0)
    )
    return jnp.sum(nats, where=scored) / jnp.maximum(jnp.sum(scored), 1)


def probabilities(
    logits: Float[Array, "*b k"],
    *,
    temperature: Scalar,
    mask: Bool[Array, "*b"] | None,
) -> Float[Array, "*b k"]:
    """softmax(logits / T): the map p that the discriminator sees of the segmenter.

    Args:
        logits: Unscaled output of the segmenter.
        temperature: T_G in L_adv, T_D in L_D.
        mask: Pixels to show; the map is zero at all others. None shows every pixel.
    """
    p = jax.nn.softmax(logits / temperature)
    return p if mask is None else p * mask[..., None]


def one_hot(
    labels: Integer[Array, "*b"], *, num_classes: int
) -> Float[Array, "*b {num_classes}"]:
    """One-hot ground truth X, zero at void: the map that D sees as real."""
    return jax.nn.one_hot(labels, num_classes)


def visible_to_discriminator(
    labels: Integer[Array, "b h w"], labeled: Bool[Array, "b"] | None
) -> Bool[Array, "b h w"]:
    """Mark the pixels of p that D sees when void is masked.

    The one-hot ground truth is zero at void pixels. D could therefore recognize it by
    its holes, unless p has the same holes. An image without labels has no void: D sees
    all of its p.
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
        """Images where `labeled` is False have no ground truth: `d_real` is void."""


class SegmenterLoss(Protocol):
    """L_adv, given D's map over the segmenter's output."""

    def __call__(self, d_fake: Num[Array, "b *map"]) -> Float[Array, ""]: ...


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
        """`discriminate` maps class maps to scores; it updates no statistics."""


class Adversary(NamedTuple):
    """The two sides of one adversarial objective."""

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
    """What is optimized: the networks, and the terms of their losses.

    Linen modules compare and hash by their fields, so two objectives that were built
    from equal configs are equal.
    """

    segmenter: nn.Module
    discriminator: nn.Module | None  # None: supervised training, L_G = L_seg
    adversary: Adversary
    critic_steps: int  # updates of D for each update of G
    mask_void: bool  # whether D sees p only where the ground truth is not void


def mean_over_labeled(
    x: Num[Array, "b *map"], labeled: Bool[Array, "b"] | None
) -> Float[Array, ""]:
    """Mean over the images that have ground truth; 0 if none has."""
    if labeled is None:
        return jnp.mean(x)
    weights = jnp.broadcast_to(labeled.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
    return jnp.sum(x, where=weights) / jnp.maximum(jnp.sum(weights), 1)
