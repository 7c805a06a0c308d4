"""Build the `Hyperparameters` of a run, which the training step traces."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from tempseg_jax.builders import schedules
from tempseg_jax.builders.plan import Plan
from tempseg_jax.hyperparameters import Hyperparameters

SCHEDULE_BLOCK = 2**14
"""The length of the schedule is a multiple of this number of steps."""


def hyperparameters(
    config: ConfigDict,
    plan: Plan,
    *,
    class_weights: Float[np.ndarray, "k"] | None = None,
) -> Hyperparameters:
    """Return the numbers that the training step traces.

    Args:
        config: The config of the run.
        plan: Its length in steps.
        class_weights: The result of `load_class_weights`.

    Raises:
        ValueError: If the warm-up leaves too few steps for the cosine cycles.
    """
    objective, optimizer = config.objective, config.optimizer
    factor = schedules.warmup_cosine(
        steps=plan.steps, warmup_steps=plan.warmup_steps, cycles=optimizer.cycles
    )
    # Padded, so that runs of different lengths share the compiled step.
    schedule = np.zeros(plan.steps + _padding(plan), np.float32)
    schedule[: plan.steps] = jax.vmap(factor)(jnp.arange(plan.steps))
    return Hyperparameters(
        seed=config.seed,
        learning_rate_schedule=schedule,
        learning_rate_g=optimizer.learning_rate_g,
        learning_rate_d=optimizer.learning_rate_d,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        head_rate=optimizer.head_rate,
        temperature_seg=_or_temperature_g(config, objective.temperature_seg),
        temperature_adv=_or_temperature_g(config, objective.temperature_adv),
        temperature_d=objective.temperature_d,
        alpha=objective.alpha,
        label_smoothing=objective.label_smoothing,
        class_weights=1.0 if class_weights is None else class_weights,
        l1=optimizer.l1,
        auxiliary_weight=objective.auxiliary,
        distill_weight=config.distill.weight,
        distill_temperature=config.distill.temperature,
        pairwise_weight=config.distill.pairwise,
        temperature_schedule=_temperature_schedule(config, plan),
        unlabeled_alpha=config.semi.alpha,
        semi_weight=config.semi.weight,
        semi_threshold=config.semi.threshold,
        semi_start=round(config.semi.start * plan.steps),
    )


def training_temperature(config: ConfigDict) -> float:
    """Return T_G in L_seg at the end, at which the calibration is measured."""
    objective = config.objective
    end = objective.temperature_end / objective.temperature_g
    factor = 1.0 if objective.temperature_schedule == "constant" else end
    return factor * _or_temperature_g(config, objective.temperature_seg)


def _or_temperature_g(config: ConfigDict, own: float | int | None) -> float | int:
    """Return a loss's own temperature, or T_G if the config sets none."""
    return config.objective.temperature_g if own is None else own


def _temperature_schedule(
    config: ConfigDict, plan: Plan
) -> float | Float[np.ndarray, "n"]:
    objective = config.objective
    if objective.temperature_schedule == "constant":
        return 1.0
    values = schedules.temperature_schedule(
        objective.temperature_schedule,
        start=objective.temperature_g,
        end=objective.temperature_end,
        steps=plan.steps,
    )
    return np.pad(values, (0, _padding(plan)), mode="edge")


def _padding(plan: Plan) -> int:
    """Return how many entries a schedule has after those of the steps."""
    return -plan.steps % SCHEDULE_BLOCK
