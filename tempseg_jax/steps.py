"""Section 3 of the paper: one training step updates the segmenter and D.

All functions are pure. The networks and loss terms are one hashable `Objective`, a
static argument of `jax.jit`; all numbers are traced. Experiments with equal objectives
therefore share one compiled step, even with other learning rates and temperatures.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from tempseg_jax import optim
from tempseg_jax.discriminator_step import (
    apply_discriminator,
    discriminator_gradients,
    fake_map,
    further_critic_steps,
    update_discriminator,
)
from tempseg_jax.hyperparameters import (
    Hyperparameters,
    at_step,
    learning_rates,
    step_key,
)
from tempseg_jax.objective import distillation, losses, semi_supervised
from tempseg_jax.objective.balanced_loss import balanced_cross_entropy
from tempseg_jax.objective.distillation import Teacher, run_teacher
from tempseg_jax.objective.losses import Objective
from tempseg_jax.optim import Gradients, differentiate, gradient_metrics
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch, Metrics, Scalar

COMPILER_OPTIONS = {"xla_cpu_copy_insertion_use_region_analysis": True}
"""Options of XLA for a training step, which change at most the rounding.

On a CPU, the old parameters are copied before the new ones are written in their place.
With this analysis XLA finds where that is not necessary, and leaves out most copies.
"""


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
        teacher = None
        if objective.real == "teacher":
            teacher = run_teacher(batch["image"], hyper.teacher, objective).logits
        discriminator, critic_metrics = further_critic_steps(
            new_state.discriminator,
            batch,
            logits,
            temperature=hyper.temperature_d,
            teacher=teacher,
            learning_rate=learning_rates(state, hyper)[1],
            key=key,
            objective=objective,
        )
        new_state = new_state.replace(discriminator=discriminator)
        metrics |= critic_metrics
    return new_state, metrics


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
        batch: Images and labels, and possibly images without labels, which only the
            segmenter is trained on (Hung et al. 2018).
        hyper: The temperatures and α.
        key: Random key of dropout and of the adversary's penalty.
        seg_weight: Factor on L_seg; it differs from 1 only in gradient accumulation.
        objective: The networks and the terms of their losses.

    Returns:
        The gradients of G and of D (None without a discriminator), G's logits of the
        labeled images, and the losses.
    """
    joined = semi_supervised.join(batch)
    teacher = run_teacher(joined["image"], hyper.teacher, objective)
    gradients_g, logits, metrics = _segmenter_gradients(
        state,
        batch,
        joined,
        hyper,
        teacher=teacher,
        key=key,
        seg_weight=seg_weight,
        objective=objective,
    )
    if objective.discriminator is None:
        return (gradients_g, None), logits, metrics
    gradients_d, metrics_d = discriminator_gradients(
        state.discriminator,
        batch,
        logits,
        temperature=hyper.temperature_d,
        teacher=None
        if teacher is None
        else semi_supervised.separate(teacher.logits, labeled=len(batch["image"]))[0],
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
        discriminator = update_discriminator(
            state.discriminator, gradients[1], rate_d, objective
        )
        metrics |= gradient_metrics("d", gradients[1])
    return TrainState(state.step + 1, segmenter, discriminator), metrics


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
    joined: Batch,
    hyper: Hyperparameters,
    *,
    teacher: Teacher | None,
    key: PRNGKeyArray,
    seg_weight: Scalar,
    objective: Objective,
) -> tuple[Gradients, Float[Array, "b h w k"], Metrics]:
    """Return the gradient of L_G (eq. 5), with D's current parameters.

    `joined` has all images of the batch, those without labels too.
    """
    stored = objective.pairwise or objective.auxiliary
    collections = ["batch_stats"] + ["intermediates"] * stored
    separate = functools.partial(semi_supervised.separate, labeled=len(batch["image"]))

    def loss_g(params):
        """L_G = L_seg + α L_adv (eq. 5)."""
        all_logits, updated = objective.segmenter.apply(
            state.segmenter.replace(params=params).variables,
            joined["image"],
            train=True,
            rngs={"dropout": key},
            mutable=collections,
        )
        logits, unlabeled_logits = separate(all_logits)
        loss_seg = seg_weight * segmentation_loss(logits, batch, hyper, objective)
        loss, metrics = loss_seg, {"loss_seg": loss_seg}
        if objective.discriminator is not None:
            fake = fake_map(all_logits, joined, hyper.temperature_adv, objective)
            scores, _ = apply_discriminator(
                objective, state.discriminator.variables, fake, joined["image"]
            )
            d_fake, d_unlabeled = separate(scores)
            loss_adv = objective.adversary.segmenter(d_fake)
            loss = loss_seg + hyper.alpha * loss_adv
            metrics["loss_adv"] = loss_adv
        if objective.auxiliary:
            logits_aux, _ = separate(updated["intermediates"]["auxiliary_logits"][0])
            loss_aux = segmentation_loss(logits_aux, batch, hyper, objective)
            metrics["loss_aux"] = seg_weight * loss_aux
            loss += hyper.auxiliary_weight * metrics["loss_aux"]
        if objective.uses_unlabeled:
            started = state.step >= hyper.semi_start
            unlabeled, named = _unlabeled_terms(
                unlabeled_logits, d_fake, d_unlabeled, batch, hyper, started, objective
            )
            loss, metrics = loss + unlabeled, metrics | named
        if teacher is not None:
            distilled, named = _distill(
                all_logits, updated, teacher, joined, hyper, seg_weight, objective
            )
            loss, metrics = loss + distilled, metrics | named
        batch_stats = updated.get("batch_stats", {})
        return loss, (batch_stats, logits, {"loss": loss, **metrics})

    return differentiate(loss_g, state.segmenter)


def _unlabeled_terms(
    logits: Float[Array, "u h w k"],
    d_labeled: Float[Array, "b *map"],
    d_unlabeled: Float[Array, "u *map"],
    batch: Batch,
    hyper: Hyperparameters,
    started: Bool[Array, ""],
    objective: Objective,
) -> tuple[Float[Array, ""], Metrics]:
    """Return the terms of L_G on images without labels, weighted and by name."""
    loss, metrics = jnp.zeros(()), {}
    if objective.unlabeled_adversarial:
        loss_adv = objective.adversary.segmenter(d_unlabeled)
        loss += hyper.unlabeled_alpha * loss_adv
        metrics["loss_adv_unlabeled"] = loss_adv
    if not objective.self_training:
        return loss, metrics
    metrics |= semi_supervised.self_training(
        logits,
        objective.adversary.confidence(d_labeled)[..., 0],
        objective.adversary.confidence(d_unlabeled)[..., 0],
        batch,
        threshold=hyper.semi_threshold,
        temperature=hyper.temperature_seg,
    )
    weight = jnp.where(started, hyper.semi_weight, 0.0)
    return loss + weight * metrics["loss_semi"], metrics


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
    mask = losses.visible_to_discriminator(batch)
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
