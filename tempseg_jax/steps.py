"""Section 3 of the paper: one training step updates the segmenter and D.

All functions are pure. The networks and loss terms are one hashable `Objective`, a
static argument of `jax.jit`; all numbers are traced. Experiments with equal objectives
therefore share one compiled step, even with other learning rates and temperatures.
"""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from tempseg_jax import optim
from tempseg_jax.discriminator_step import (
    discriminator_gradients,
    further_critic_steps,
    update_discriminator,
)
from tempseg_jax.hyperparameters import (
    Hyperparameters,
    at_step,
    learning_rates,
    step_key,
)
from tempseg_jax.objective import semi_supervised
from tempseg_jax.objective.distillation import run_teacher
from tempseg_jax.objective.losses import Objective
from tempseg_jax.optim import Gradients, gradient_metrics
from tempseg_jax.segmenter_step import segmenter_gradients
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch, Metrics, Scalar


class LabeledLogits(NamedTuple):
    """Logits of the labeled images of a batch."""

    segmenter: Float[Array, "b h w k"]
    teacher: Float[Array, "b h w k"] | None


def train_step(
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    *,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """Update both players once, each against the other's old parameters.

    If `critic_steps` is above 1, D is then updated again on the same images and class
    maps, and the metrics of D are those of its last update; skipped ones are counted.
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
        _, rate_d = learning_rates(state, hyper)
        discriminator, critic_metrics = further_critic_steps(
            new_state.discriminator,
            batch,
            logits.segmenter,
            temperature=hyper.temperature_d,
            teacher=logits.teacher,
            learning_rate=rate_d,
            key=key,
            objective=objective,
        )
        new_state = new_state.replace(discriminator=discriminator)
        if "skipped_d" in metrics:
            critic_metrics["skipped_d"] += metrics["skipped_d"]
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
) -> tuple[tuple[Gradients, Gradients | None], LabeledLogits, Metrics]:
    """Return both players' gradients (eqs. 1 to 5) from one forward pass of G.

    Args:
        state: The parameters and running statistics of both players.
        batch: Images and labels, and possibly unlabeled images, which only the
            segmenter is trained on (Hung et al. 2018).
        hyper: The temperatures and α.
        key: Random key of dropout and of the adversary's penalty.
        seg_weight: Factor on the terms that are means over labeled pixels; it differs
            from 1 only in gradient accumulation.
        objective: The networks and the terms of their losses.

    Returns:
        The gradients of G and of D (None without a discriminator), the logits of the
        labeled images, and the losses.
    """
    joined = semi_supervised.join(batch)
    teacher = run_teacher(joined["image"], hyper.teacher, objective)
    gradients_g, logits, metrics = segmenter_gradients(
        state,
        batch,
        joined,
        hyper,
        teacher=teacher,
        key=key,
        seg_weight=seg_weight,
        objective=objective,
    )
    labeled_teacher = None
    if teacher is not None:
        labeled_teacher, _ = semi_supervised.separate(
            teacher.logits, labeled=len(batch["image"])
        )
    labeled = LabeledLogits(logits, labeled_teacher)
    if objective.discriminator is None:
        return (gradients_g, None), labeled, metrics
    gradients_d, metrics_d = discriminator_gradients(
        state.discriminator,
        batch,
        logits,
        temperature=hyper.temperature_d,
        teacher=labeled_teacher,
        key=jax.random.fold_in(key, 0),
        objective=objective,
    )
    return (gradients_g, gradients_d), labeled, metrics | metrics_d


def apply_updates(
    state: TrainState,
    gradients: tuple[Gradients, Gradients | None],
    hyper: Hyperparameters,
    *,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """Update both players, and return their gradient norms and loss scales."""
    gradients_g, gradients_d = gradients
    rate_g, rate_d = learning_rates(state, hyper)
    segmenter = optim.update_segmenter(
        state.segmenter,
        gradients_g,
        learning_rate=rate_g,
        head_rate=hyper.head_rate,
        momentum=hyper.momentum,
        weight_decay=hyper.weight_decay,
        l1=hyper.l1 if objective.l1 else None,
    )
    metrics = {"learning_rate": rate_g} | gradient_metrics("g", gradients_g)
    discriminator = None
    if gradients_d is not None:
        discriminator = update_discriminator(
            state.discriminator, gradients_d, rate_d, objective
        )
        metrics |= gradient_metrics("d", gradients_d)
    return TrainState(state.step + 1, segmenter, discriminator), metrics
