"""Build the initial training state of a run, with its pretrained weights."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Num, PRNGKeyArray, PyTree
from ml_collections import ConfigDict

from tempseg_jax import discriminator_step, optim, precision, train_state
from tempseg_jax.builders import initial_weights
from tempseg_jax.objective.losses import Objective
from tempseg_jax.train_state import TrainState


def initial_state(
    config: ConfigDict, objective: Objective, *, class_names: Sequence[str]
) -> TrainState:
    """Return the state before training: seeded, with the pretrained weights loaded.

    Args:
        config: The config of the run.
        objective: Its networks.
        class_names: The names of the classes. The score layers of another run are
            loaded only if it has the same classes.

    Raises:
        FileNotFoundError: If `model.pretrained` is a folder without a checkpoint.
        ValueError: If the weights are not those of this network.
    """
    return _state(config, objective, class_names, init=_COMPILED_INIT)


def _state(
    config: ConfigDict,
    objective: Objective,
    class_names: Sequence[str],
    *,
    init: Callable[..., PyTree],
) -> TrainState:
    # In current JAX these are also the keys of steps 0 and 1, whose draws are others;
    # they stay, so that a seed means the same initial weights as before.
    key_g, key_d = jax.random.split(jax.random.key(config.seed))
    image = jnp.zeros((1, 64, 64, 3), jnp.uint8)
    variables = init(key_g, image, network=objective.segmenter)
    if config.model.pretrained:
        variables, report = initial_weights.load(
            variables, config.model, class_names=class_names
        )
        if jax.process_index() == 0:
            print(report, flush=True)
    _check_head_rate(config, variables["params"])
    scale = precision.loss_scale(config.precision)
    # The optimizers' initial states do not depend on these values.
    sgd = optim.sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0)
    segmenter = train_state.init_player(variables, sgd, loss_scale=scale)
    discriminator = None
    if objective.discriminator is not None:
        p = jnp.zeros((1, 64, 64, objective.segmenter.num_classes))
        discriminator = train_state.init_player(
            init(
                key_d,
                discriminator_step.discriminator_input(p, image, objective),
                network=objective.discriminator,
            ),
            optim.DISCRIMINATOR_OPTIMIZERS[objective.discriminator_optimizer](
                learning_rate=0.0
            ),
            loss_scale=scale,
        )
    return TrainState(jnp.int32(0), segmenter, discriminator)


def abstract_state(config: ConfigDict, objective: Objective) -> TrainState:
    """Return the shapes of `initial_state`, without computing or reading anything."""
    scratch = config.copy_and_resolve_references()
    scratch.model.pretrained = ""
    return jax.eval_shape(lambda: _state(scratch, objective, (), init=_init))


def _check_head_rate(config: ConfigDict, params: PyTree) -> None:
    if config.optimizer.head_rate != 1 and not any(
        jax.tree.leaves(optim.head_mask(params))
    ):
        raise ValueError(
            f"optimizer.head_rate: {config.optimizer.head_rate} has no effect on "
            f"model.name={config.model.name!r}, which has no layer whose name starts "
            "with 'score'; name its last layers so, or set it to 1"
        )


def _init(key: PRNGKeyArray, x: Num[Array, "..."], *, network: nn.Module) -> PyTree:
    return network.init(key, x, train=False)


_COMPILED_INIT = jax.jit(
    _init,
    static_argnames="network",
    compiler_options={"xla_backend_optimization_level": 1},
)
"""Compiled once for all runs of a process.

It runs once for each, so LLVM's first level is enough: XLA compiles it in a third to a
fifth of the time, and it draws the same numbers.
"""
