"""Hyperparameters that the training step traces, and their values at a step."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from tempseg_jax.objective.losses import Objective
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Scalar


class Hyperparameters(NamedTuple):
    """The numbers of an experiment.

    All are traced: a step that is compiled serves every value.
    """

    seed: int | Int[Array, ""]
    learning_rate_schedule: PyTree  # Float[Array, "n"]: a factor by step; n >= steps
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
    unlabeled_alpha: Scalar = 0.0  # weight of L_adv on unlabeled images
    semi_weight: Scalar = 0.0  # of L_semi
    semi_threshold: Scalar = 0.0  # of D's confidence, for a pixel to count in L_semi
    semi_start: Scalar = 0  # steps before L_semi counts


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
    factor = hyper.learning_rate_schedule[state.step]
    return factor * hyper.learning_rate_g, factor * hyper.learning_rate_d
