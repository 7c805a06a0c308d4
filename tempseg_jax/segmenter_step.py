"""G's half of a training step: L_G (eq. 5) with its terms, and its gradient.

All functions are pure.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from tempseg_jax.discriminator_step import apply_discriminator, fake_map
from tempseg_jax.hyperparameters import Hyperparameters
from tempseg_jax.objective import distillation, losses, semi_supervised
from tempseg_jax.objective.balanced_loss import balanced_cross_entropy
from tempseg_jax.objective.distillation import Teacher
from tempseg_jax.objective.losses import Objective
from tempseg_jax.optim import Gradients, differentiate
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch, Metrics, Scalar


def segmenter_gradients(
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

    Args:
        state: The parameters and running statistics of both players.
        batch: Images and labels, and possibly unlabeled images.
        joined: All images of `batch`, as `semi_supervised.join` returns them.
        hyper: The temperatures and the weights of the terms.
        teacher: The teacher's logits and features of the joined images, if any.
        key: Random key of dropout.
        seg_weight: Factor on L_seg, L_aux and the teacher's KL divergence; it differs
            from 1 only in gradient accumulation.
        objective: The networks and the terms of their losses.

    Returns:
        The gradient and the new running statistics, the logits of the labeled images,
        and the losses.
    """
    collections = ["batch_stats"]
    if objective.pairwise or objective.auxiliary:
        collections.append("intermediates")  # features, and scores of stage 4
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
            loss_adv = objective.adversary.segmenter_loss(d_fake)
            loss = loss_seg + hyper.alpha * loss_adv
            metrics["loss_adv"] = loss_adv
        if objective.auxiliary:
            logits_aux, _ = separate(updated["intermediates"]["auxiliary_logits"][0])
            loss_aux = segmentation_loss(logits_aux, batch, hyper, objective)
            metrics["loss_aux"] = seg_weight * loss_aux
            loss += hyper.auxiliary_weight * metrics["loss_aux"]
        if objective.uses_unlabeled:  # a config with them always has a discriminator
            loss_unlabeled, unlabeled_metrics = _unlabeled_terms(
                batch,
                hyper,
                logits=unlabeled_logits,
                d_labeled=d_fake,
                d_unlabeled=d_unlabeled,
                started=state.step >= hyper.semi_start,
                objective=objective,
            )
            loss += loss_unlabeled
            metrics |= unlabeled_metrics
        if teacher is not None:
            loss_distilled, distillation_metrics = _distillation_terms(
                joined,
                hyper,
                logits=all_logits,
                updated=updated,
                teacher=teacher,
                seg_weight=seg_weight,
                objective=objective,
            )
            loss += loss_distilled
            metrics |= distillation_metrics
        batch_stats = updated.get("batch_stats", {})
        return loss, (batch_stats, logits, {"loss": loss, **metrics})

    return differentiate(loss_g, state.segmenter)


def _unlabeled_terms(
    batch: Batch,
    hyper: Hyperparameters,
    *,
    logits: Float[Array, "u h w k"],
    d_labeled: Float[Array, "b *map"],
    d_unlabeled: Float[Array, "u *map"],
    started: Bool[Array, ""],
    objective: Objective,
) -> tuple[Float[Array, ""], Metrics]:
    """Return the weighted sum of the terms on unlabeled images, and each of them.

    Args:
        batch: The labeled images and the unlabeled ones.
        hyper: The weights of the terms.
        logits: Those of the unlabeled images.
        d_labeled: D's scores of p of the labeled images.
        d_unlabeled: D's scores of p of the others.
        started: Whether L_semi counts already.
        objective: Which of the terms are on.
    """
    loss, metrics = jnp.zeros(()), {}
    if objective.unlabeled_adversarial:
        loss_adv = objective.adversary.segmenter_loss(d_unlabeled)
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


def _distillation_terms(
    batch: Batch,
    hyper: Hyperparameters,
    *,
    logits: Float[Array, "b h w k"],
    updated: PyTree,
    teacher: Teacher,
    seg_weight: Scalar,
    objective: Objective,
) -> tuple[Float[Array, ""], Metrics]:
    """Return the weighted sum of the teacher's terms, and each of them.

    Args:
        batch: All images, labeled or not.
        hyper: The weights of the terms.
        logits: Those of the segmenter.
        updated: The collections that its forward pass stored.
        teacher: The teacher's logits and features.
        seg_weight: Factor on the KL divergence, as in `segmenter_gradients`.
        objective: Whether the features are compared, too.
    """
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
