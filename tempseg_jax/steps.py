"""Section 3 of the paper: one training step updates the segmenter and D.

All functions are pure. The networks and loss terms are one hashable `Objective`, a
static argument of `jax.jit`; all numbers are traced. Experiments with equal objectives
therefore share one compiled step, even with other learning rates and temperatures.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt8

from tempseg_jax import optim
from tempseg_jax.objective import distillation, losses
from tempseg_jax.objective.adversaries import mean_over_labeled
from tempseg_jax.objective.balanced_loss import balanced_cross_entropy
from tempseg_jax.objective.losses import Objective
from tempseg_jax.optim import (
    Gradients,
    differentiate,
    gradient_metrics,
)
from tempseg_jax.train_state import Player, TrainState
from tempseg_jax.types import Batch, Metrics, Scalar


class Hyperparameters(NamedTuple):
    """The numbers of an experiment. All are traced: no change compiles anything."""

    seed: int | Int[Array, ""]
    schedule: PyTree  # Float[Array, "n"]: a factor on both rates, by step; n >= steps
    learning_rate_g: Scalar
    learning_rate_d: Scalar
    momentum: Scalar
    weight_decay: Scalar  # λ
    head_rate: Scalar  # factor on the learning rate of the score layers
    temperature_seg: Scalar  # T_G in L_seg
    temperature_adv: Scalar  # T_G in L_adv
    temperature_d: Scalar  # T_D
    alpha: Scalar  # α
    label_smoothing: Scalar  # ε in L_seg; used only with `Objective.smooth_labels`
    class_weights: PyTree = 1.0  # Float[Array, "k"]: used only with the objective's
    l1: Scalar = 0.0  # weight of Σ |W|; used only with `Objective.l1`
    auxiliary_weight: Scalar = 0.0  # of the loss of the auxiliary head
    temperature_schedule: PyTree = 1.0  # Float[Array, "n"]: a factor on T_G, by step
    teacher: PyTree = None  # the teacher's variables
    distill_weight: Scalar = 0.0  # of the KL divergence from the teacher
    distill_temperature: Scalar = 1.0  # T in it
    pairwise_weight: Scalar = 0.0  # of the distillation of affinities


class Teacher(NamedTuple):
    """What the teacher makes of a batch."""

    logits: Float[Array, "b h w k"]
    features: Array | None  # of its last layer before the scores; only for `pairwise`


def train_step(
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    *,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """Update both players once, each against the other's old parameters.

    If `critic_steps` is above 1, D is then updated again on the same images and class
    maps, and the metrics of D are those of its last update.
    """
    hyper = at_step(state, hyper, objective)
    key = step_key(state, hyper)
    gradients, logits, metrics = compute_gradients(
        state, batch, hyper, key=key, seg_weight=1.0, objective=objective
    )
    new_state, update_metrics = apply_updates(
        state, gradients, hyper, objective=objective
    )
    metrics |= update_metrics
    if objective.discriminator is not None and objective.critic_steps > 1:
        discriminator, critic_metrics = _further_critic_steps(
            new_state.discriminator,
            batch,
            logits,
            hyper,
            learning_rate=learning_rates(state, hyper)[1],
            key=key,
            objective=objective,
        )
        new_state = new_state.replace(discriminator=discriminator)
        metrics |= critic_metrics
    return new_state, metrics


def step_key(state: TrainState, hyper: Hyperparameters) -> PRNGKeyArray:
    """Return the random key of this step; it depends only on the seed and the step."""
    return jax.random.fold_in(jax.random.key(hyper.seed), state.step)


def at_step(
    state: TrainState, hyper: Hyperparameters, objective: Objective
) -> Hyperparameters:
    """Return the hyperparameters of this step: T_G may have a schedule."""
    if not objective.scheduled_temperature:
        return hyper
    factor = hyper.temperature_schedule[state.step]
    return hyper._replace(
        temperature_seg=factor * hyper.temperature_seg,
        temperature_adv=factor * hyper.temperature_adv,
    )


def learning_rates(
    state: TrainState, hyper: Hyperparameters
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the learning rates of G and of D at the state's step."""
    factor = hyper.schedule[state.step]
    return factor * hyper.learning_rate_g, factor * hyper.learning_rate_d


def compute_gradients(
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    *,
    key: PRNGKeyArray,
    seg_weight: Scalar,
    objective: Objective,
) -> tuple[tuple[Gradients, Gradients | None], Float[Array, "b h w k"], Metrics]:
    """Return both players' gradients (eqs. 1 to 5) from one forward pass of G.

    Args:
        state: The parameters and running statistics of both players.
        batch: Images and labels; `labeled`, if present, marks the images that have
            labels.
        hyper: The temperatures and α.
        key: Random key of dropout and of the adversary's penalty.
        seg_weight: Factor on L_seg; it differs from 1 only in gradient accumulation.
        objective: The networks and the terms of their losses.

    Returns:
        The gradients of G and of D (None without a discriminator), G's logits, and the
        losses.
    """
    teacher = run_teacher(batch, hyper, objective)
    gradients_g, logits, metrics = _segmenter_gradients(
        state,
        batch,
        hyper,
        teacher=teacher,
        key=key,
        seg_weight=seg_weight,
        objective=objective,
    )
    if objective.discriminator is None:
        return (gradients_g, None), logits, metrics
    gradients_d, metrics_d = _discriminator_gradients(
        state.discriminator,
        batch,
        logits,
        hyper,
        teacher=teacher,
        key=jax.random.fold_in(key, 0),
        objective=objective,
    )
    return (gradients_g, gradients_d), logits, metrics | metrics_d


def apply_updates(
    state: TrainState,
    gradients: tuple[Gradients, Gradients | None],
    hyper: Hyperparameters,
    *,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """Update both players, and return their gradient norms and loss scales."""
    rate_g, rate_d = learning_rates(state, hyper)
    segmenter = optim.update_segmenter(
        state.segmenter,
        gradients[0],
        learning_rate=rate_g,
        head_rate=hyper.head_rate,
        momentum=hyper.momentum,
        weight_decay=hyper.weight_decay,
        l1=hyper.l1 if objective.l1 else None,
    )
    metrics = {"learning_rate": rate_g} | gradient_metrics("g", gradients[0])
    discriminator = None
    if gradients[1] is not None:
        discriminator = _update_discriminator(
            state.discriminator, gradients[1], rate_d, objective
        )
        metrics |= gradient_metrics("d", gradients[1])
    return TrainState(state.step + 1, segmenter, discriminator), metrics


def _update_discriminator(
    player: Player, gradients: Gradients, learning_rate: Scalar, objective: Objective
) -> Player:
    return optim.update_discriminator(
        player,
        gradients,
        optimizer=objective.discriminator_optimizer,
        learning_rate=learning_rate,
        clip=objective.adversary.clip,
    )


def predict(
    variables: dict[str, PyTree],
    image: UInt8[Array, "b h w 3"],
    *,
    segmenter: nn.Module,
) -> Float[Array, "b h w k"]:
    """Return the logits in evaluation mode: no dropout, running statistics."""
    return segmenter.apply(variables, image, train=False)


def _segmenter_gradients(
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    *,
    teacher: Teacher | None,
    key: PRNGKeyArray,
    seg_weight: Scalar,
    objective: Objective,
) -> tuple[Gradients, Float[Array, "b h w k"], Metrics]:
    """Return the gradient of L_G (eq. 5), with D's current parameters."""
    stored = objective.pairwise or objective.auxiliary
    collections = ["batch_stats"] + ["intermediates"] * stored

    def loss_g(params):
        """L_G = L_seg + α L_adv (eq. 5)."""
        logits, updated = objective.segmenter.apply(
            state.segmenter.replace(params=params).variables,
            batch["image"],
            train=True,
            rngs={"dropout": key},
            mutable=collections,
        )
        loss_seg = seg_weight * segmentation_loss(logits, batch, hyper, objective)
        loss, metrics = loss_seg, {"loss_seg": loss_seg}
        if objective.discriminator is not None:
            fake = fake_map(logits, batch, hyper.temperature_adv, objective)
            d_fake, _ = apply_discriminator(
                objective, state.discriminator.variables, fake, batch["image"]
            )
            loss_adv = objective.adversary.segmenter(d_fake)
            loss = loss_seg + hyper.alpha * loss_adv
            metrics["loss_adv"] = loss_adv
        if objective.auxiliary:
            logits_aux = updated["intermediates"]["auxiliary_logits"][0]
            loss_aux = segmentation_loss(logits_aux, batch, hyper, objective)
            metrics["loss_aux"] = seg_weight * loss_aux
            loss += hyper.auxiliary_weight * metrics["loss_aux"]
        if teacher is not None:
            distilled, named = _distill(
                logits, updated, teacher, batch, hyper, seg_weight, objective
            )
            loss, metrics = loss + distilled, metrics | named
        batch_stats = updated.get("batch_stats", {})
        return loss, (batch_stats, logits, {"loss": loss, **metrics})

    return differentiate(loss_g, state.segmenter)


def run_teacher(
    batch: Batch, hyper: Hyperparameters, objective: Objective
) -> Teacher | None:
    """Return the teacher's outputs in evaluation mode; None without a teacher."""
    if objective.teacher is None:
        return None
    logits, updated = objective.teacher.apply(
        hyper.teacher, batch["image"], train=False, mutable=["intermediates"]
    )
    features = updated["intermediates"]["features"][0] if objective.pairwise else None
    return Teacher(jax.lax.stop_gradient(logits), features)


def _distill(
    logits: Float[Array, "b h w k"],
    updated: PyTree,
    teacher: Teacher,
    batch: Batch,
    hyper: Hyperparameters,
    seg_weight: Scalar,
    objective: Objective,
) -> tuple[Float[Array, ""], Metrics]:
    """Return the terms of L_G that distill the teacher, weighted and by name."""
    mask = losses.visible_to_discriminator(batch["label"], batch.get("labeled"))
    kl = seg_weight * distillation.distillation_loss(
        logits, teacher.logits, mask=mask, temperature=hyper.distill_temperature
    )
    loss, metrics = hyper.distill_weight * kl, {"loss_distill": kl}
    if objective.pairwise:
        features = updated["intermediates"]["features"][0]
        pairs = distillation.pairwise_loss(features, teacher.features)
        loss += hyper.pairwise_weight * pairs
        metrics["loss_pairwise"] = pairs
    return loss, metrics


def _discriminator_gradients(
    player: Player,
    batch: Batch,
    logits: Float[Array, "b h w k"],
    hyper: Hyperparameters,
    *,
    teacher: Teacher | None,
    key: PRNGKeyArray,
    objective: Objective,
) -> tuple[Gradients, Metrics]:
    """Return the gradient of L_D (eq. 3), from the segmenter's logits.

    D runs separately on real and on fake maps, so that BatchNorm normalizes each by its
    own batch statistics. Both update the running statistics, the real maps first.
    """
    image, labeled = batch["image"], batch.get("labeled")
    logits = jax.lax.stop_gradient(logits)
    fake = fake_map(logits, batch, hyper.temperature_d, objective)
    if objective.real == "matched":
        real = losses.one_hot_with_values_of(fake, batch["label"])
    elif objective.real == "teacher":
        real = fake_map(teacher.logits, batch, hyper.temperature_d, objective)
    else:
        real = losses.one_hot(batch["label"], num_classes=logits.shape[-1])

    def loss_d(params):
        """L_D (eq. 3), plus the adversary's penalty if it has one."""
        variables = player.replace(params=params).variables
        d_real, batch_stats = apply_discriminator(
            objective, variables, real, image, mask=labeled
        )
        d_fake, batch_stats = apply_discriminator(
            objective, variables | {"batch_stats": batch_stats}, fake, image
        )
        loss = objective.adversary.discriminator(d_real, d_fake, labeled=labeled)
        means = {
            "d_real": mean_over_labeled(d_real, labeled),
            "d_fake": jnp.mean(d_fake),
        }
        if objective.adversary.penalty is not None:
            means["penalty"] = objective.adversary.penalty(
                lambda x: apply_discriminator(objective, variables, x, image)[0],
                real,
                fake,
                labeled=labeled,
                key=key,
            )
            loss += means["penalty"]
        return loss, (batch_stats, None, {"loss_d": loss, **means})

    gradients, _, metrics = differentiate(loss_d, player)
    return gradients, metrics


def segmentation_loss(
    logits: Float[Array, "b h w k"],
    batch: Batch,
    hyper: Hyperparameters,
    objective: Objective,
) -> Float[Array, ""]:
    """L_seg (eq. 1), with smoothed labels, class weights or OHEM if they are on."""
    if objective.class_weights or objective.hard_pixels < 1:
        return balanced_cross_entropy(
            logits,
            batch["label"],
            temperature=hyper.temperature_seg,
            smoothing=hyper.label_smoothing if objective.smooth_labels else 0.0,
            class_weights=hyper.class_weights if objective.class_weights else 1.0,
            hard_pixels=objective.hard_pixels,
        )
    if objective.smooth_labels:
        return losses.smoothed_cross_entropy(
            logits,
            batch["label"],
            temperature=hyper.temperature_seg,
            smoothing=hyper.label_smoothing,
        )
    return losses.cross_entropy(
        logits, batch["label"], temperature=hyper.temperature_seg
    )


def _further_critic_steps(
    player: Player,
    batch: Batch,
    logits: Float[Array, "b h w k"],
    hyper: Hyperparameters,
    *,
    learning_rate: Scalar,
    key: PRNGKeyArray,
    objective: Objective,
) -> tuple[Player, Metrics]:
    """Update D `critic_steps` - 1 more times; return the metrics of the last update."""
    teacher = (
        run_teacher(batch, hyper, objective) if objective.real == "teacher" else None
    )

    def critic_step(player: Player, i: Int[Array, ""]) -> tuple[Player, Metrics]:
        gradients, metrics = _discriminator_gradients(
            player,
            batch,
            logits,
            hyper,
            teacher=teacher,
            key=jax.random.fold_in(key, i),
            objective=objective,
        )
        player = _update_discriminator(player, gradients, learning_rate, objective)
        return player, metrics | gradient_metrics("d", gradients)

    updates = jnp.arange(1, objective.critic_steps)
    player, metrics = jax.lax.scan(critic_step, player, updates)
    return player, jax.tree.map(lambda x: x[-1], metrics)


def apply_discriminator(
    objective: Objective,
    variables: dict[str, PyTree],
    x: Float[Array, "b h w k"],
    image: UInt8[Array, "b h w 3"],
    *,
    mask: Bool[Array, "b"] | None = None,
) -> tuple[Float[Array, "b *map"], PyTree]:
    """Return D's scores and its updated running statistics, in training mode.

    Images where `mask` is False are left out of BatchNorm's statistics. If it is False
    for all images, the scores mean nothing, and the running statistics stay.
    """
    x = discriminator_input(x, image, objective)
    if mask is None:
        scores, updated = objective.discriminator.apply(
            variables, x, train=True, mutable=["batch_stats"]
        )
        return scores, updated.get("batch_stats", {})
    # The mean and variance of no values would be NaN.
    scores, updated = objective.discriminator.apply(
        variables, x, train=True, mutable=["batch_stats"], mask=mask | ~jnp.any(mask)
    )
    batch_stats = jax.tree.map(
        lambda new, old: jnp.where(jnp.any(mask), new, old),
        updated.get("batch_stats", {}),
        variables.get("batch_stats", {}),
    )
    return scores, batch_stats


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
        mask = losses.visible_to_discriminator(batch["label"], batch.get("labeled"))
    return losses.probabilities(logits, temperature=temperature, mask=mask)
