"""The share of L_adv in the segmenter's gradient, and its cosine with that of L_seg."""

import jax
import jax.numpy as jnp
import optax

from tempseg_jax.discriminator_step import apply_discriminator, fake_map
from tempseg_jax.hyperparameters import Hyperparameters, at_step, step_key
from tempseg_jax.objective.losses import Objective
from tempseg_jax.segmenter_step import segmentation_loss
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch, Metrics


def adversarial_gradient(
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    *,
    images: int,
    objective: Objective,
) -> Metrics:
    """Compare the gradients of α L_adv and of L_seg with respect to the logits.

    The networks run as in a training step, but nothing is updated. The backward pass
    ends at the logits, so that this costs one forward pass of the segmenter, and a
    forward and a backward pass of D.

    L_G here is L_seg + α L_adv: the loss of an auxiliary head, distillation, and the
    terms of images without labels are left out. Only the labeled images of the batch
    are used, also in a semi-supervised run, where BatchNorm's statistics in training
    are those of all images.

    Args:
        state: The parameters and running statistics of both players.
        batch: Images and labels; images without labels are ignored.
        hyper: The temperatures and α.
        images: The number of images of the batch that are used, from its first.
        objective: The networks and the terms of their losses; with a discriminator.

    Returns:
        `adv_share`, the norm of the gradient of α L_adv divided by that of L_G, and
        `adv_cosine`, the cosine of the angle between those of L_adv and L_seg. Both
        are 0 if a norm that they are divided by is 0.
    """
    hyper = at_step(state, hyper, objective)
    batch = jax.tree.map(lambda x: x[:images], batch)
    logits, _ = objective.segmenter.apply(
        state.segmenter.variables,
        batch["image"],
        train=True,
        rngs={"dropout": step_key(state, hyper)},
        mutable=["batch_stats"],
    )

    # In float16 the gradient within D underflows without the scale of L_G.
    loss_scale = state.segmenter.loss_scale
    scale = 1.0 if loss_scale is None else loss_scale.scale

    def loss_adv(logits):
        fake = fake_map(logits, batch, hyper.temperature_adv, objective)
        d_fake, _ = apply_discriminator(
            objective, state.discriminator.variables, fake, batch["image"]
        )
        return scale * hyper.alpha * objective.adversary.segmenter_loss(d_fake)

    def loss_seg(logits):
        return segmentation_loss(logits, batch, hyper, objective)

    adv, seg = jax.grad(loss_adv)(logits) / scale, jax.grad(loss_seg)(logits)
    norm_adv, norm_seg = optax.tree.norm(adv), optax.tree.norm(seg)
    return {
        "adv_share": _ratio(norm_adv, optax.tree.norm(adv + seg)),
        "adv_cosine": _ratio(jnp.vdot(adv, seg), norm_adv * norm_seg),
    }


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
