"""The jitted training step."""

import functools
from collections.abc import Callable

import jax

from tempseg_jax import gradient_accumulation, steps
from tempseg_jax.hyperparameters import Hyperparameters
from tempseg_jax.objective.losses import Objective
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch, Metrics

COMPILER_OPTIONS = {"xla_cpu_copy_insertion_use_region_analysis": True}
"""Options of XLA for a training step, which change at most the rounding.

On a CPU, the old parameters are copied before the new ones are written in their place.
With this analysis XLA finds where that is not necessary, and leaves out most copies.
"""

TRAIN_STEP = jax.jit(
    steps.train_step,
    static_argnames=("objective",),
    donate_argnames=("state",),
    compiler_options=COMPILER_OPTIONS,
)
"""The jitted training step; runs with equal objectives share the compiled step."""

ACCUMULATED_STEP = jax.jit(
    gradient_accumulation.accumulated_step,
    static_argnames=("micro_batches", "objective"),
    donate_argnames=("state",),
    compiler_options=COMPILER_OPTIONS,
)
"""The jitted training step with gradient accumulation."""


def jitted_step(
    objective: Objective, *, micro_batches: int
) -> Callable[[TrainState, Batch, Hyperparameters], tuple[TrainState, Metrics]]:
    """Return the jitted step, with gradient accumulation over several micro-batches."""
    if micro_batches == 1:
        return functools.partial(TRAIN_STEP, objective=objective)
    return functools.partial(
        ACCUMULATED_STEP, micro_batches=micro_batches, objective=objective
    )
