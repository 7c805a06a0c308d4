"""Describe the networks and the config of an experiment: `--mode=describe`."""

import functools

import jax
import numpy as np
from ml_collections import ConfigDict

from tempseg_jax import builders
from tempseg_jax.builders import config_fields
from tempseg_jax.models.flops import count_flops, count_parameters
from tempseg_jax.models.segmenter import predict


def describe(config: ConfigDict) -> str:
    """Return the sizes of the networks and the whole config; no data is read.

    Raises:
        ValueError: If a field has a value that is not allowed.
    """
    config_fields.check_fields(config)
    num_classes = len(builders.class_names(config))
    objective = builders.build_objective(config, num_classes=num_classes)
    state = builders.abstract_state(config, objective)
    size = config.data.crop_size
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    forward = functools.partial(predict, segmenter=objective.segmenter)
    flops = count_flops(forward, state.segmenter.variables, image)
    model = config.model
    stride = f", output stride {model.output_stride}" if model.output_stride else ""
    critic = model.discriminator if state.discriminator else "none"
    lines = [
        f"segmenter: {model.name}, {num_classes} classes, head {model.head}{stride}",
        f"discriminator: {critic}",
    ]
    players = {"segmenter": state.segmenter, "discriminator": state.discriminator}
    for name, player in players.items():
        count = count_parameters(player.params) if player else 0
        lines.append(f"{name} parameters: {count}")
    lines.append(
        f"segmenter forward pass: {flops / 1e9:.2f} GFLOP for one image of "
        f"{size}x{size}"
    )
    return "\n".join([*lines, "", str(config)])
