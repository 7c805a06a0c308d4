"""Adversarial objectives: L_D and L_adv of each, from the scores of D."""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray


def least_squares_discriminator(
    d_real: Num[Array, "b *map"],
    d_fake: Num[Array, "b *map"],
) -> Float[Array, ""]:
    """½ [ E (D(X) - 1)² + E D(p_{T_D})² ] (eq. 3); 0.25 if D is 0.5 everywhere."""
    real = jnp.mean(jnp.square(d_real - 1))
    return (real + jnp.mean(jnp.square(d_fake))) / 2


def least_squares_segmenter(d_fake: Num[Array, "b *map"]) -> Float[Array, ""]:
    """½ E (D(p_{T_G}) - 1)² (eq. 4)."""
    return jnp.mean(jnp.square(d_fake - 1)) / 2


def minimax_discriminator(
    d_real: Num[Array, "b *map"],
    d_fake: Num[Array, "b *map"],
) -> Float[Array, ""]:
    """- E log σ(D(X)) - E log (1 - σ(D(p_{T_D}))), σ the sigmoid (eq. 2)."""
    real = jnp.mean(jax.nn.softplus(-d_real))
    return real + jnp.mean(jax.nn.softplus(d_fake))


def non_saturating_segmenter(d_fake: Num[Array, "b *map"]) -> Float[Array, ""]:
    """- E log σ(D(p_{T_G})): the segmenter's side of equation 2, without saturation.

    It has the same fixed point as `saturating_segmenter`, but its gradient does not
    vanish while D wins. DCGAN is trained with this form.
    """
    return jnp.mean(jax.nn.softplus(-d_fake))


def saturating_segmenter(d_fake: Num[Array, "b *map"]) -> Float[Array, ""]:
    """E log (1 - σ(D(p_{T_G}))): the segmenter's side of equation 2 as it is written.

    Its gradient with respect to D(p) is -σ(D(p)), which vanishes if D is certain that p
    is not ground truth (Goodfellow et al. 2014, section 3).
    """
    return -jnp.mean(jax.nn.softplus(d_fake))


def hinge_discriminator(
    d_real: Num[Array, "b *map"],
    d_fake: Num[Array, "b *map"],
) -> Float[Array, ""]:
    """E max(0, 1 - D(X)) + E max(0, 1 + D(p_{T_D})) (Lim & Ye 2017)."""
    real = jnp.mean(jax.nn.relu(1 - d_real))
    return real + jnp.mean(jax.nn.relu(1 + d_fake))


def wasserstein_critic(
    d_real: Num[Array, "b *map"],
    d_fake: Num[Array, "b *map"],
) -> Float[Array, ""]:
    """E D(p_{T_D}) - E D(X) (Arjovsky et al. 2017).

    If D is the best K-Lipschitz function, its negative is K times the Wasserstein
    distance of the class maps of the segmenter from those of the ground truth.
    """
    return jnp.mean(d_fake) - jnp.mean(d_real)


def linear_segmenter(d_fake: Num[Array, "b *map"]) -> Float[Array, ""]:
    """- E D(p_{T_G}): the segmenter's side of `wasserstein_critic` and of the hinge."""
    return -jnp.mean(d_fake)


def gradient_penalty(
    discriminate: Callable[[Float[Array, "b h w k"]], Num[Array, "b *map"]],
    real: Float[Array, "b h w k"],
    fake: Float[Array, "b h w k"],
    *,
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """λ E (‖∇D(x)‖ - 1)² with x at random between X and p (Gulrajani et al. 2017).

    The score of an image is the mean over its score map, as in `wasserstein_critic`.
    The distance of two maps is the root of the mean, not of the sum, over the pixels of
    their squared distances: ∇D(x) is multiplied by the root of the number of pixels. λ
    and α then do not depend on the crop size. X and p are distributions over the
    classes at each pixel, and so is every x between them, except at void pixels, where
    all of them are zero. ∇ is therefore the gradient with respect to the other pixels.
    With the void ones, a `dcgan_ln` was 200 times as steep at a map with one pixel that
    is not void, because its GroupNorms divide by the variance over a map of zeros.

    An image that is all void has no x between X and p, and its term is 0.
    """
    share = jax.random.uniform(key, (len(real), 1, 1, 1))
    between = share * real + (1 - share) * fake
    visible = jnp.any(between != 0, axis=-1, keepdims=True)
    has_visible = jnp.any(visible, axis=(1, 2, 3), keepdims=True)
    # Another map in place of zeros, because 0 times an infinite derivative is NaN.
    between = jnp.where(has_visible, between, 1 / real.shape[-1])

    # Inside the gradient, which without this factor is too small for float16.
    root = math.sqrt(real.shape[1] * real.shape[2])

    def sum_of_scores(x: Array) -> Array:
        scores = discriminate(x)
        return root * jnp.sum(jnp.mean(scores.reshape(len(scores), -1), axis=1))

    slope = jnp.where(visible, jax.grad(sum_of_scores)(between), 0)
    square = jnp.sum(jnp.square(slope), axis=(1, 2, 3))
    norm = jnp.sqrt(square + 1e-12)  # the square root has no derivative at 0
    excess = jnp.where(has_visible.ravel(), norm - 1, 0)
    return PENALTY_WEIGHT * jnp.mean(jnp.square(excess))


def clipped_score(d: Num[Array, "*map"]) -> Float[Array, "*map"]:
    """Return D of `lsgan` as a probability: its regression of 1 for X and 0 for p.

    The D that minimizes equation 3 is the probability of ground truth, as σ(D) is for
    the D that minimizes equation 2 (Mao et al. 2017; Goodfellow et al. 2014).
    """
    return jnp.clip(d, 0, 1)


PENALTY_WEIGHT = 10.0
"""λ of `gradient_penalty`, as in Gulrajani et al. 2017."""

CLIP = 0.01
"""Largest absolute value of a parameter of D in Arjovsky et al. 2017."""


class DiscriminatorLoss(Protocol):
    """L_D, given D's maps over ground truth and over the segmenter's output."""

    def __call__(
        self,
        d_real: Num[Array, "b *map"],
        d_fake: Num[Array, "b *map"],
    ) -> Float[Array, ""]:
        """Return L_D."""


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
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        """Return the penalty; `discriminate` maps class maps to the scores of D.

        Calling it does not update D's running statistics.
        """


class Adversary(NamedTuple):
    """The losses of both players in one adversarial objective."""

    discriminator_loss: DiscriminatorLoss
    segmenter_loss: SegmenterLoss
    penalty: Penalty | None = None  # D must score each image independently of others
    clip: float | None = None  # parameters of D are clipped to ± this after an update
    # The probability of ground truth from a score of D; None if scores have no such
    # meaning: those of a critic or of the hinge have only an order.
    confidence: Callable[[Num[Array, "*map"]], Float[Array, "*map"]] | None = None


ADVERSARIES = {
    "lsgan": Adversary(
        least_squares_discriminator, least_squares_segmenter, confidence=clipped_score
    ),
    "dcgan": Adversary(
        minimax_discriminator, non_saturating_segmenter, confidence=jax.nn.sigmoid
    ),
    "minimax": Adversary(
        minimax_discriminator, saturating_segmenter, confidence=jax.nn.sigmoid
    ),
    "hinge": Adversary(hinge_discriminator, linear_segmenter),
    "wgan": Adversary(wasserstein_critic, linear_segmenter, clip=CLIP),
    "wgan_gp": Adversary(
        wasserstein_critic, linear_segmenter, penalty=gradient_penalty
    ),
}
"""The values of `objective.adversary`."""
