"""Equations 1 to 5 of the paper. Everything here is float32."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer, Num

from tempseg_jax.types import IGNORE_LABEL, Scalar


def cross_entropy(
    logits: Float[Array, "*b k"],
    labels: Integer[Array, "*b"],
    *,
    temperature: Scalar,
) -> Float[Array, ""]:
    """Mean over scored pixels of -log softmax(logits / T)[label], in nats (eq. 1).

    The mean, where equation 1 sums over the image: the sum diverges at the paper's
    learning rate. The weight decay of equation 1 is the optimizer's (optim.py).
    """
    scored = labels != IGNORE_LABEL
    nats = optax.softmax_cross_entropy_with_integer_labels(
        logits / temperature, jnp.where(scored, labels, 0)
    )
    return jnp.sum(nats, where=scored) / jnp.maximum(jnp.sum(scored), 1)


def probabilities(
    logits: Float[Array, "*b k"],
    labels: Integer[Array, "*b"],
    *,
    temperature: Scalar,
    mask_void: bool,
) -> Float[Array, "*b k"]:
    """What D sees of the segmenter: softmax(logits / T), zero where the label is void.

    Without the mask D can tell the ground truth by its void pixels, which are zero.
    """
    p = jax.nn.softmax(logits / temperature)
    return p * (labels != IGNORE_LABEL)[..., None] if mask_void else p


def one_hot(
    labels: Integer[Array, "*b"], *, num_classes: int
) -> Float[Array, "*b {num_classes}"]:
    """What D sees of the ground truth, X: one-hot, zero where void."""
    return jax.nn.one_hot(labels, num_classes)


def least_squares_discriminator(
    d_real: Num[Array, "*b"], d_fake: Num[Array, "*b"]
) -> Float[Array, ""]:
    """½ [ E (D(X) - 1)² + E D(p_{T_D})² ]: 0.25 where D says 0.5 everywhere (eq. 3)."""
    return (jnp.mean(jnp.square(d_real - 1)) + jnp.mean(jnp.square(d_fake))) / 2


def least_squares_adversarial(d_fake: Num[Array, "*b"]) -> Float[Array, ""]:
    """½ E (D(p_{T_G}) - 1)² (eq. 4)."""
    return jnp.mean(jnp.square(d_fake - 1)) / 2


def minimax_discriminator(
    d_real: Num[Array, "*b"], d_fake: Num[Array, "*b"]
) -> Float[Array, ""]:
    """- E log D(X) - E log (1 - D(p_{T_D})), D being the sigmoid of the map (eq. 2)."""
    return jnp.mean(jax.nn.softplus(-d_real)) + jnp.mean(jax.nn.softplus(d_fake))


def minimax_adversarial(d_fake: Num[Array, "*b"]) -> Float[Array, ""]:
    """- E log D(p_{T_G}): equation 2's last term, in the form that does not saturate.

    Minimizing log (1 - D) has the same fixed point but no gradient while D wins
    (Goodfellow et al. 2014, section 3); DCGAN is trained with this one.
    """
    return jnp.mean(jax.nn.softplus(-d_fake))


class DiscriminatorLoss(Protocol):
    """L_D of D's maps over the ground truth and over the segmenter's output."""

    def __call__(
        self, d_real: Num[Array, "*b"], d_fake: Num[Array, "*b"]
    ) -> Float[Array, ""]: ...


class AdversarialLoss(Protocol):
    """L_adv of D's map over the segmenter's output."""

    def __call__(self, d_fake: Num[Array, "*b"]) -> Float[Array, ""]: ...


class Adversary(NamedTuple):
    """The two sides of one adversarial objective."""

    discriminator: DiscriminatorLoss
    segmenter: AdversarialLoss


ADVERSARIES = {
    "lsgan": Adversary(least_squares_discriminator, least_squares_adversarial),
    "dcgan": Adversary(minimax_discriminator, minimax_adversarial),
}
