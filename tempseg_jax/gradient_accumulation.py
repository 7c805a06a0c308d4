"""One step over a batch that does not fit the device, played in parts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from tempseg_jax.steps import (
    Gradients,
    Hyperparameters,
    apply_updates,
    compute_gradients,
    dropout_key,
)
from tempseg_jax.train_state import Player, TrainState
from tempseg_jax.types import IGNORE_LABEL, Batch, Metrics


def accumulated_step(
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    *,
    rounds: int,
    segmenter: nn.Module,
    discriminator: nn.Module | None,
    gan: str,
    mask_void: bool,
) -> tuple[TrainState, Metrics]:
    """Do what `train_step` does, with the memory of a batch `rounds` times smaller.

    The gradients of L_seg, L_adv and L_D are those of the whole batch: each round's
    L_seg is weighted by its share of the scored pixels, and D's maps are of one size.
    Not the same are BatchNorm, whose statistics are of a part and whose running
    averages move `rounds` times a step, and dropout, which is drawn anew each round.
    """
    parts = jax.tree.map(lambda x: _every_nth(x, rounds), batch)
    scored = jnp.sum(parts["label"] != IGNORE_LABEL, axis=(1, 2, 3))
    weights = rounds * scored / jnp.maximum(jnp.sum(scored), 1)

    def one_round(carry, part):
        state, sums, finite = carry
        i, batch, weight = part
        gradients, metrics = compute_gradients(
            state,
            batch,
            hyper,
            dropout=jax.random.fold_in(dropout_key(state, hyper), i),
            seg_weight=weight,
            segmenter=segmenter,
            discriminator=discriminator,
            gan=gan,
            mask_void=mask_void,
        )
        players = _players(state)
        moved = [
            player.replace(batch_stats=d.batch_stats, loss_scale=d.loss_scale)
            for player, d in zip(players, gradients, strict=False)
        ]
        sums = [
            jax.tree.map(lambda total, grad: total + grad / rounds, total, d.grads)
            for total, d in zip(sums, gradients, strict=False)
        ]
        finite = [
            None if d.finite is None else so_far & d.finite
            for so_far, d in zip(finite, gradients, strict=False)
        ]
        return (_with_players(state, moved), sums, finite), metrics

    players = _players(state)
    start = (
        state,
        [jax.tree.map(jnp.zeros_like, player.params) for player in players],
        [None if player.loss_scale is None else jnp.array(True) for player in players],
    )
    (played, sums, finite), metrics = jax.lax.scan(
        one_round, start, (jnp.arange(rounds), parts, weights)
    )
    gradients = [
        Gradients(grads, player.batch_stats, player.loss_scale, ok)
        for player, grads, ok in zip(_players(played), sums, finite, strict=True)
    ]
    state, moved = apply_updates(state, (*gradients, None)[:2], hyper)
    return state, jax.tree.map(jnp.mean, metrics) | moved


def _players(state: TrainState) -> list[Player]:
    return [p for p in (state.segmenter, state.discriminator) if p is not None]


def _with_players(state: TrainState, players: list[Player]) -> TrainState:
    return TrainState(state.step, *players, *[None] * (2 - len(players)))


def _every_nth(x: Shaped[Array, "b ..."], rounds: int) -> Shaped[Array, "r part ..."]:
    """Deal the batch out to the rounds, so that each device keeps what it has."""
    return jnp.moveaxis(x.reshape(-1, rounds, *x.shape[1:]), 1, 0)
