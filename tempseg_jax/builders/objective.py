"""Build the `Objective` of a run: its networks and the terms of their losses."""

import dataclasses

import flax.linen as nn
from jaxtyping import PyTree
from ml_collections import ConfigDict

from tempseg_jax import precision
from tempseg_jax.builders import initial_weights
from tempseg_jax.hyperparameters import Hyperparameters
from tempseg_jax.models import DISCRIMINATORS, with_field
from tempseg_jax.models.build import build_segmenter
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.objective.adversaries import ADVERSARIES
from tempseg_jax.objective.losses import Objective

_TRAINING_OPTIONS = {"freeze_batch_norm": "none", "dropout": None, "drop_connect": 0.0}
"""Fields of `model` that not all networks have, and the values that need none."""


def build_objective(
    config: ConfigDict, *, num_classes: int, preprocessing: Preprocessing | None = None
) -> Objective:
    """Return the networks and the terms of their losses.

    Args:
        config: The config of the run, checked by `config_fields`.
        num_classes: Number of classes of the dataset.
        preprocessing: The preprocessing that a checkpoint was trained with. None means
            the preprocessing that the config's pretrained weights expect.

    Raises:
        FileNotFoundError: If `model.pretrained` is a folder without a checkpoint.
        ValueError: If `model.pretrained` is neither a known source, a weight file nor a
            run, or if the network does not have what a field asks for.
    """
    dtype = precision.COMPUTE_DTYPES[config.precision]
    segmenter = build_segmenter(
        config.model.name,
        head=config.model.head,
        output_stride=config.model.output_stride,
        auxiliary=config.objective.auxiliary > 0,
        num_classes=num_classes,
        preprocessing=preprocessing
        or initial_weights.preprocessing_of(config.model.pretrained),
        width=config.model.width,
        dtype=dtype,
        remat=config.model.remat,
    )
    segmenter = _with_training_options(segmenter, config)
    discriminator = None
    if config.objective.alpha:
        discriminator = DISCRIMINATORS[config.model.discriminator](dtype)
    return Objective(
        segmenter=segmenter,
        discriminator=discriminator,
        adversary=ADVERSARIES[config.objective.adversary],
        critic_steps=config.objective.critic_steps,
        mask_void=config.objective.mask_void,
        real=config.objective.real,
        smooth_labels=config.objective.label_smoothing > 0,
        conditional=config.objective.conditional,
        discriminator_optimizer=config.optimizer.discriminator,
        class_weights=config.objective.class_weights != "none",
        hard_pixels=float(config.objective.hard_pixels),
        l1=config.optimizer.l1 > 0,
        auxiliary=config.objective.auxiliary > 0,
        scheduled_temperature=config.objective.temperature_schedule != "constant",
        unlabeled_adversarial=config.semi.alpha > 0,
        self_training=config.semi.weight > 0,
    )


def with_teacher(
    config: ConfigDict,
    objective: Objective,
    hyper: Hyperparameters,
    *,
    teacher: nn.Module,
    variables: PyTree,
) -> tuple[Objective, Hyperparameters]:
    """Return the objective and the hyperparameters with the teacher's network added."""
    pairwise = config.distill.pairwise > 0
    objective = dataclasses.replace(objective, teacher=teacher, pairwise=pairwise)
    return objective, hyper._replace(teacher=variables)


def _with_training_options(segmenter: nn.Module, config: ConfigDict) -> nn.Module:
    """Set `_TRAINING_OPTIONS` in the network and in its backbone.

    Raises:
        ValueError: If the config sets a field that the network does not have.
    """
    for field, default in _TRAINING_OPTIONS.items():
        value = config.model[field]
        if value == default:
            continue
        changed = with_field(segmenter, field, value)
        if changed is None:
            raise ValueError(
                f"model.{field}: {value!r} is not supported by model.name="
                f"{config.model.name!r}, which has no such field; set it to {default!r}"
            )
        segmenter = changed
    return segmenter
