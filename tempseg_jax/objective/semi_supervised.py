"""Terms of L_G on unlabeled images, as in AdvSemiSeg (Hung et al. 2018).

A batch may have such images beside its labeled ones. Both go through the segmenter
together; only the labeled ones train D.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from tempseg_jax.objective.losses import cross_entropy
from tempseg_jax.types import IGNORE_LABEL, Batch, Metrics, Scalar


def self_training_loss(
    logits: Float[Array, "u h w k"],
    *,
    chosen: Bool[Array, "u h w"],
    temperature: Scalar,
) -> Float[Array, ""]:
    """L_semi: the cross-entropy to pseudo-labels, the argmax of p, at chosen pixels.

    The mean over them of -log softmax(logits / T)[argmax logits], in nats, and 0 if
    there are none. The paper has the sum; its authors' code has the mean.
    """
    own = jnp.where(chosen, jnp.argmax(logits, axis=-1), IGNORE_LABEL)
    return cross_entropy(logits, own, temperature=temperature)


def self_training(
    logits: Float[Array, "u h w k"],
    labeled: Float[Array, "b h w"],
    unlabeled: Float[Array, "u h w"],
    batch: Batch,
    *,
    threshold: Scalar,
    temperature: Scalar,
) -> Metrics:
    """Return L_semi, and what it depends on.

    Args:
        logits: Those of the unlabeled images.
        labeled: D's confidence in p of the labeled images.
        unlabeled: D's confidence in p of the others.
        batch: Both kinds of images.
        threshold: Confidence above which a pixel counts.
        temperature: T_G in L_seg.
    """
    visible = batch["unlabeled_visible"]
    chosen = trusted(unlabeled, visible=visible, threshold=threshold)
    return {
        "loss_semi": self_training_loss(logits, chosen=chosen, temperature=temperature),
        "semi_share": _mean_over(chosen, visible),
        "confidence_labeled": _mean_over(labeled, batch["label"] != IGNORE_LABEL),
        "confidence_unlabeled": _mean_over(unlabeled, visible),
    }


def trusted(
    confidence: Float[Array, "u h w"],
    *,
    visible: Bool[Array, "u h w"],
    threshold: Scalar,
) -> Bool[Array, "u h w"]:
    """Mark the pixels of the images whose confidence by D is above the threshold."""
    return visible & (jax.lax.stop_gradient(confidence) > threshold)


def _mean_over(
    x: Shaped[Array, "b h w"], mask: Bool[Array, "b h w"]
) -> Float[Array, ""]:
    """Return the mean over the marked pixels; 0 if there are none."""
    return jnp.sum(x, where=mask) / jnp.maximum(jnp.sum(mask), 1)


def join(batch: Batch) -> Batch:
    """Return the labeled and the unlabeled images as one batch; void if unlabeled.

    A batch without unlabeled images is returned as it is.
    """
    if "unlabeled_image" not in batch:
        return batch
    visible = batch["unlabeled_visible"]
    void = jnp.full(visible.shape, IGNORE_LABEL, batch["label"].dtype)
    return {
        "image": _interleave(batch["image"], batch["unlabeled_image"]),
        "label": _interleave(batch["label"], void),
        "visible": _interleave(batch["label"] != IGNORE_LABEL, visible),
    }


def separate(
    x: Shaped[Array, "n ..."], *, labeled: int
) -> tuple[Shaped[Array, "b ..."], Shaped[Array, "u ..."] | None]:
    """Return the values of the labeled and of the unlabeled images of a joined batch.

    Args:
        x: Values of all images.
        labeled: Number of labeled images; if there are no others, the second result is
            None.
    """
    if labeled == len(x):
        return x, None
    groups = math.gcd(labeled, len(x) - labeled)
    parts = x.reshape(groups, -1, *x.shape[1:])
    b, u = jnp.split(parts, [labeled // groups], axis=1)
    return tuple(part.reshape(-1, *x.shape[1:]) for part in (b, u))


def _interleave(
    labeled: Shaped[Array, "b ..."], unlabeled: Shaped[Array, "u ..."]
) -> Shaped[Array, "n ..."]:
    """Return all images, in groups that have the ratio of the whole batch.

    Both arrays are sharded over the devices. A concatenation would move images between
    devices; in groups every image stays on its device, whose number divides b and u.
    """
    groups = math.gcd(len(labeled), len(unlabeled))
    parts = [x.reshape(groups, -1, *x.shape[1:]) for x in (labeled, unlabeled)]
    return jnp.concatenate(parts, axis=1).reshape(-1, *labeled.shape[1:])
