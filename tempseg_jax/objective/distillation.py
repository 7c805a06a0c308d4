"""Distillation of a trained segmenter, the teacher, into the one that is trained."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from tempseg_jax.objective.losses import Objective
from tempseg_jax.types import Scalar


class Teacher(NamedTuple):
    """What the teacher makes of a batch."""

    logits: Float[Array, "b h w k"]
    features: Array | None  # of its last layer before the scores; only for `pairwise`


def run_teacher(
    image: UInt8[Array, "b h w 3"], variables: PyTree, objective: Objective
) -> Teacher | None:
    """Return the teacher's outputs in evaluation mode; None without a teacher."""
    if objective.teacher is None:
        return None
    logits, updated = objective.teacher.apply(
        variables, image, train=False, mutable=["intermediates"]
    )
    features = updated["intermediates"]["features"][0] if objective.pairwise else None
    return Teacher(jax.lax.stop_gradient(logits), features)


def distillation_loss(
    student: Float[Array, "b h w k"],
    teacher: Float[Array, "b h w k"],
    *,
    mask: Bool[Array, "b h w"],
    temperature: Scalar,
) -> Float[Array, ""]:
    """T² KL(softmax(z_t / T) ‖ softmax(z_s / T)), mean over pixels.

    With the factor T², the gradient has the same order of magnitude at all T (Hinton et
    al. 2015).

    Args:
        student: Logits z_s, not divided by a temperature.
        teacher: Logits z_t; no gradient passes through them.
        mask: The pixels that count. The loss is 0 if there are none.
        temperature: T.
    """
    log_t = jax.nn.log_softmax(jax.lax.stop_gradient(teacher) / temperature)
    log_s = jax.nn.log_softmax(student / temperature)
    nats = jnp.sum(jnp.exp(log_t) * (log_t - log_s), axis=-1)
    mean = jnp.sum(nats, where=mask) / jnp.maximum(jnp.sum(mask), 1)
    return temperature**2 * mean


def pairwise_loss(
    student: Float[Array, "b h w c"], teacher: Float[Array, "b h2 w2 c2"]
) -> Float[Array, ""]:
    """Mean over pairs of positions of (a_s - a_t)² (Liu et al. 2019, equation 2).

    a is the cosine of the angle between the features at the two positions. The features
    of the teacher are resized to the height and width of the student's; their numbers
    of channels may differ. No gradient passes through the teacher.
    """
    b, h, w, _ = student.shape
    shape = (b, h, w, teacher.shape[-1])
    teacher = jax.lax.stop_gradient(teacher).astype(jnp.float32)
    resized = jax.image.resize(teacher, shape, method="linear")
    difference = _affinity(student.astype(jnp.float32)) - _affinity(resized)
    return jnp.mean(jnp.square(difference))


def _affinity(features: Array) -> Array:
    """Return the cosines of all pairs of positions, (b, h w, h w)."""
    x = features.reshape(len(features), -1, features.shape[-1])
    # The root has no derivative at 0, and the features of a dead ReLU are 0.
    norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)
    x = x / norm
    return x @ x.swapaxes(1, 2)
