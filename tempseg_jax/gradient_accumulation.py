"""Gradient accumulation: a training step over several micro-batches."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from tempseg_jax.steps import (
    Gradients,
    Hyperparameters,
    Objective,
    apply_updates,
    at_step,
    compute_gradients,
    step_key,
)
from tempseg_jax.train_state import Player, TrainState
from tempseg_jax.types import IGNORE_LABEL, Batch, Metrics

Item = TypeVar("Item")


def accumulated_step(
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    *,
    micro_batches: int,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """Compute the same as `train_step`, with the activation memory of one micro-batch.

    The gradients of L_seg, L_adv and L_D are those of the whole batch: L_seg of each
    micro-batch is weighted by its share of the scored pixels, and the score maps of D
    have the same size for all images. There are two differences. BatchNorm normalizes
    by the statistics of a micro-batch, and updates its running statistics once per
    micro-batch. Dropout masks are drawn for each micro-batch separately.

    Raises:
        ValueError: If the batch has images without labels: L_semi is a mean over the
            pixels that D trusts, whose number differs between micro-batches.
    """
    if "unlabeled_image" in batch:
        raise ValueError(
            f"accumulate: {micro_batches} micro-batches of a batch with unlabeled "
            "images do not give the gradients of the whole batch; set it to 1"
        )
    hyper = at_step(state, hyper, objective)
    parts = jax.tree.map(lambda x: _split(x, micro_batches), batch)
    scored = jnp.sum(parts["label"] != IGNORE_LABEL, axis=(1, 2, 3))
    weights = micro_batches * scored / jnp.maximum(jnp.sum(scored), 1)

    def accumulate(carry, part):
        state, sums, finite = carry
        i, micro_batch, weight = part
        pair, _, metrics = compute_gradients(
            state,
            micro_batch,
            hyper,
            key=jax.random.fold_in(step_key(state, hyper), i),
            seg_weight=weight,
            objective=objective,
        )
        gradients = [g for g in pair if g is not None]  # in the order of `_players`
        players = [
            player.replace(batch_stats=g.batch_stats, loss_scale=g.loss_scale)
            for player, g in zip(_players(state), gradients, strict=True)
        ]
        sums = [
            jax.tree.map(jnp.add, total, g.grads)
            for total, g in zip(sums, gradients, strict=True)
        ]
        finite = [
            None if g.finite is None else so_far & g.finite
            for so_far, g in zip(finite, gradients, strict=True)
        ]
        return (TrainState(state.step, *_pair(players)), sums, finite), metrics

    players = _players(state)
    start = (
        state,
        [jax.tree.map(jnp.zeros_like, player.params) for player in players],
        [None if player.loss_scale is None else jnp.array(True) for player in players],
    )
    (state_after, sums, finite), metrics = jax.lax.scan(
        accumulate, start, (jnp.arange(micro_batches), parts, weights)
    )
    # Divided after the loop: XLA moves the all-reduces of plain sums out of the loop.
    sums = jax.tree.map(lambda x: x / micro_batches, sums)
    gradients = [
        Gradients(grads, player.batch_stats, player.loss_scale, ok)
        for player, grads, ok in zip(_players(state_after), sums, finite, strict=True)
    ]
    new_state, update_metrics = apply_updates(
        state, _pair(gradients), hyper, objective=objective
    )
    return new_state, jax.tree.map(jnp.mean, metrics) | update_metrics


def _players(state: TrainState) -> list[Player]:
    """Return the segmenter, then the discriminator if there is one."""
    return [p for p in (state.segmenter, state.discriminator) if p is not None]


def _pair(of_players: list[Item]) -> tuple[Item, Item | None]:
    """Return what `_players` lists as a pair, with None for no discriminator."""
    segmenter, *discriminator = of_players
    return segmenter, discriminator[0] if discriminator else None


def _split(
    x: Shaped[Array, "b ..."], micro_batches: int
) -> Shaped[Array, "m part ..."]:
    """Assign every m-th image to one micro-batch, so that each stays on its device."""
    return jnp.moveaxis(x.reshape(-1, micro_batches, *x.shape[1:]), 1, 0)
