"""The items of a checkpoint: how a training state is divided into them."""

from collections.abc import Callable

import jax
import orbax.checkpoint as ocp
from flax.training.dynamic_scale import DynamicScale
from jaxtyping import PyTree

from tempseg_jax import precision
from tempseg_jax.train_state import Player, TrainState


def with_loss_scales(
    state: TrainState, make: Callable[[], DynamicScale | None]
) -> TrainState:
    """Give each player a loss scale of its own: no buffer may be donated twice."""
    return jax.tree.map(
        lambda x: x.replace(loss_scale=make()) if isinstance(x, Player) else x,
        state,
        is_leaf=lambda x: isinstance(x, Player),
    )


def abstract_loss_scale(
    precision_name: str, *, like: TrainState
) -> DynamicScale | None:
    """Return the shapes of a precision's loss scale, sharded as the step of `like`."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=like.step.sharding),
        precision.loss_scale(precision_name),
    )


def training(state: TrainState) -> dict[str, PyTree]:
    """Return the content of the item `training`."""
    players = {"segmenter": state.segmenter, "discriminator": state.discriminator}
    return {"step": state.step} | {
        name: {"opt_state": player.opt_state, "loss_scale": player.loss_scale}
        for name, player in players.items()
        if player is not None
    }


def assemble(restored: ocp.args.Composite, like: TrainState) -> TrainState:
    """Build a state from the restored items."""

    def player(name: str) -> Player:
        return Player(**restored[name], **restored["training"][name])

    return TrainState(
        step=restored["training"]["step"],
        segmenter=player("segmenter"),
        discriminator=None if like.discriminator is None else player("discriminator"),
    )
