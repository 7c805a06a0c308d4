"""D's half of a training step: what D sees, L_D (eq. 3), and D's updates.

All functions are pure.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt8

from tempseg_jax.objective import losses
from tempseg_jax.objective.losses import Objective
from tempseg_jax.optim import (
    DISCRIMINATOR_OPTIMIZERS,
    Gradients,
    differentiate,
    gradient_metrics,
    update_player,
)
from tempseg_jax.train_state import Player
from tempseg_jax.types import Batch, Metrics, Scalar


def discriminator_gradients(
    player: Player,
    batch: Batch,
    logits: Float[Array, "b h w k"],
    *,
    temperature: Scalar,
    teacher: Float[Array, "b h w k"] | None,
    key: PRNGKeyArray,
    objective: Objective,
) -> tuple[Gradients, Metrics]:
    """Return the gradient of L_D (eq. 3), from the segmenter's logits.

    D runs separately on real and on fake maps, so that BatchNorm normalizes each by its
    own batch statistics. Both update the running statistics, the real maps first.
    """
    image = batch["image"]
    logits = jax.lax.stop_gradient(logits)
    fake = fake_map(logits, batch, temperature, objective)
    if objective.real == "matched":
        real = losses.one_hot_with_values_of(fake, batch["label"])
    elif objective.real == "teacher":
        real = fake_map(teacher, batch, temperature, objective)
    else:
        real = losses.one_hot(batch["label"], num_classes=logits.shape[-1])

    def loss_d(params):
        """L_D (eq. 3), plus the adversary's penalty if it has one."""
        variables = player.replace(params=params).variables
        d_real, batch_stats = apply_discriminator(objective, variables, real, image)
        d_fake, batch_stats = apply_discriminator(
            objective, variables | {"batch_stats": batch_stats}, fake, image
        )
        loss = objective.adversary.discriminator_loss(d_real, d_fake)
        means = {"d_real": jnp.mean(d_real), "d_fake": jnp.mean(d_fake)}
        if objective.adversary.penalty is not None:
            means["penalty"] = objective.adversary.penalty(
                lambda x: apply_discriminator(objective, variables, x, image)[0],
                real,
                fake,
                key=key,
            )
            loss += means["penalty"]
        return loss, (batch_stats, None, {"loss_d": loss, **means})

    gradients, _, metrics = differentiate(loss_d, player)
    return gradients, metrics


def update_discriminator(
    player: Player, gradients: Gradients, learning_rate: Scalar, objective: Objective
) -> Player:
    """Apply one update of D, and clip its parameters if the adversary bounds them."""
    optimizer = DISCRIMINATOR_OPTIMIZERS[objective.discriminator_optimizer]
    player = update_player(player, optimizer(learning_rate=learning_rate), gradients)
    clip = objective.adversary.clip
    if clip is None:
        return player
    clipped = jax.tree.map(lambda x: jnp.clip(x, -clip, clip), player.params)
    return player.replace(params=clipped)


def further_critic_steps(
    player: Player,
    batch: Batch,
    logits: Float[Array, "b h w k"],
    *,
    temperature: Scalar,
    teacher: Float[Array, "b h w k"] | None,
    learning_rate: Scalar,
    key: PRNGKeyArray,
    objective: Objective,
) -> tuple[Player, Metrics]:
    """Update D `critic_steps` - 1 more times.

    Returns:
        D, and the metrics of the last update; those updates that float16 skipped are
        counted over all of them.
    """
    # No scan, because on a CPU XLA's convolutions are ten times slower in a loop.
    metrics: Metrics = {}
    skipped = 0.0
    for i in range(1, objective.critic_steps):
        gradients, metrics = discriminator_gradients(
            player,
            batch,
            logits,
            temperature=temperature,
            teacher=teacher,
            key=jax.random.fold_in(key, i),
            objective=objective,
        )
        player = update_discriminator(player, gradients, learning_rate, objective)
        metrics |= gradient_metrics("d", gradients)
        skipped += metrics.get("skipped_d", 0.0)
    if "skipped_d" in metrics:
        metrics["skipped_d"] = skipped
    return player, metrics


def apply_discriminator(
    objective: Objective,
    variables: dict[str, PyTree],
    x: Float[Array, "b h w k"],
    image: UInt8[Array, "b h w 3"],
) -> tuple[Float[Array, "b *map"], PyTree]:
    """Return D's scores and its updated running statistics, in training mode."""
    scores, updated = objective.discriminator.apply(
        variables,
        discriminator_input(x, image, objective),
        train=True,
        mutable=["batch_stats"],
    )
    return scores, updated.get("batch_stats", {})


def discriminator_input(
    x: Float[Array, "b h w k"], image: UInt8[Array, "b h w 3"], objective: Objective
) -> Float[Array, "b h w _"]:
    """Return what D sees of a class map: with `conditional`, the image as well.

    The image (-1 to 1) is three more channels, the same for X and for p.
    """
    if not objective.conditional:
        return x
    return jnp.concatenate([x, image.astype(x.dtype) / 127.5 - 1], axis=-1)


def fake_map(
    logits: Float[Array, "b h w k"],
    batch: Batch,
    temperature: Scalar,
    objective: Objective,
) -> Float[Array, "b h w k"]:
    """Return p_T as D sees it; with `mask_void` it is zero at void pixels."""
    mask = None
    if objective.mask_void:
        mask = losses.visible_to_discriminator(batch)
    return losses.probabilities(logits, temperature=temperature, mask=mask)
