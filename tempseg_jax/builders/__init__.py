"""Objective, state, numbers and data of an experiment, from its config.

These functions take the whole config; all modules below take plain arguments.
"""

from tempseg_jax.builders.data import (
    class_names,
    load_class_weights,
    load_split,
    load_tiles,
    load_training_images,
    load_training_split,
    load_unlabeled_dir,
    training_batches,
)
from tempseg_jax.builders.numbers import (
    hyperparameters,
    training_temperature,
)
from tempseg_jax.builders.objective import (
    build_objective,
    with_teacher,
)
from tempseg_jax.builders.restored import (
    describe_model,
    restore_segmenter,
    restore_state,
)
from tempseg_jax.builders.run_data import load_run_data
from tempseg_jax.builders.state import (
    abstract_state,
    initial_state,
)

__all__ = [
    "abstract_state",
    "build_objective",
    "class_names",
    "describe_model",
    "hyperparameters",
    "initial_state",
    "load_class_weights",
    "load_run_data",
    "load_split",
    "load_tiles",
    "load_training_images",
    "load_training_split",
    "load_unlabeled_dir",
    "restore_segmenter",
    "restore_state",
    "training_batches",
    "training_temperature",
    "with_teacher",
]
