"""Restore checkpoints of a run into the networks that its config describes."""

from typing import Any

import flax.linen as nn
from jax.sharding import Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict

from tempseg_jax import mesh
from tempseg_jax.builders.numbers import training_temperature
from tempseg_jax.builders.objective import build_objective
from tempseg_jax.builders.state import abstract_state
from tempseg_jax.data import catalog
from tempseg_jax.objective.losses import Objective
from tempseg_jax.train_state import TrainState
from tempseg_jax.workdir.checkpoint import Checkpoints


def restore_state(
    config: ConfigDict,
    checkpoints: Checkpoints,
    split: catalog.Split,
    *,
    step: int,
    devices: Mesh,
) -> tuple[Objective, TrainState, dict[str, Any]]:
    """Restore both players from a checkpoint.

    Returns:
        The objective, the state on every device of the mesh, and the description of
        the model (`describe_model`).

    Raises:
        ValueError: If the networks of the checkpoint are not those of the config.
    """
    objective, model = _as_trained(config, checkpoints, split, step=step)
    shapes = mesh.replicated_shapes(abstract_state(config, objective), devices)
    return objective, checkpoints.restore(shapes, model, step=step), model


def restore_segmenter(
    config: ConfigDict,
    checkpoints: Checkpoints,
    split: catalog.Split,
    *,
    step: int,
    devices: Mesh,
) -> tuple[nn.Module, PyTree]:
    """Restore only the segmenter: its module, and its variables on every device.

    Raises:
        ValueError: If the segmenter of the checkpoint is not that of the config.
    """
    objective, model = _as_trained(config, checkpoints, split, step=step)
    variables = abstract_state(config, objective).segmenter.variables
    shapes = mesh.replicated_shapes(variables, devices)
    restored = checkpoints.restore_segmenter(shapes, model, step=step)
    return objective.segmenter, restored


def describe_model(
    config: ConfigDict, objective: Objective, split: catalog.Split
) -> dict[str, Any]:
    """Return the description of the model that is saved in its checkpoints.

    The segmenter can be restored from it without the config.
    """
    segmenter = objective.segmenter
    return {
        "name": config.model.name,
        "width": config.model.width,
        "head": config.model.head,
        "output_stride": config.model.output_stride,
        "auxiliary": objective.auxiliary,
        "drop_connect": config.model.drop_connect,
        "num_classes": segmenter.num_classes,
        "discriminator": None
        if objective.discriminator is None
        else _described_discriminator(config),
        "preprocessing": segmenter.preprocessing._asdict(),
        "class_names": split.class_names,
        "palette": split.palette.tolist(),
        "dataset": split.dataset,
        "precision": config.precision,
        "temperature_g": training_temperature(config),
    }


def _as_trained(
    config: ConfigDict, checkpoints: Checkpoints, split: catalog.Split, *, step: int
) -> tuple[Objective, dict[str, Any]]:
    """Return objective and model description with the checkpoint's preprocessing."""
    objective = build_objective(
        config,
        num_classes=len(split.class_names),
        preprocessing=checkpoints.training_preprocessing(step),
    )
    return objective, describe_model(config, objective, split)


def _described_discriminator(config: ConfigDict) -> str:
    """Name what the variables and the optimizer state of D depend on."""
    parts = [config.model.discriminator]
    if config.objective.conditional:
        parts.append("conditional")
    if config.optimizer.discriminator != "adam":  # of versions without the field
        parts.append(config.optimizer.discriminator)
    return ", ".join(parts)
