"""Gradient accumulation: a training step over several micro-batches."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from tempseg_jax.hyperparameters import Hyperparameters, at_step, step_key
from tempseg_jax.objective.losses import Objective
from tempseg_jax.optim import Gradients
from tempseg_jax.steps import apply_updates, compute_gradients
from tempseg_jax.train_state import Player, TrainState
from tempseg_jax.types import IGNORE_LABEL, Batch, Metrics


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
    have the same size for all images. There are three differences. BatchNorm normalizes
    by the statistics of a micro-batch, and updates its running statistics once per
    micro-batch. Spectral normalization takes an iteration, and so divides by another
    norm, for each micro-batch. Random numbers, of dropout and of the gradient penalty,
    are drawn for each micro-batch.

    Raises:
        ValueError: If the objective needs the whole batch at once.
    """
    if objective.needs_whole_batch:
        raise ValueError(
            f"accumulate: {micro_batches} micro-batches do not give the gradients of "
            "the whole batch with several critic steps, class weights, hard pixels or "
            "unlabeled images; set it to 1"
        )
    hyper = at_step(state, hyper, objective)
    parts = jax.tree.map(lambda x: _split(x, micro_batches), batch)
    scored = jnp.sum(parts["label"] != IGNORE_LABEL, axis=(1, 2, 3))
    weights = micro_batches * scored / jnp.maximum(jnp.sum(scored), 1)

    def accumulate(totals, part):
        i, micro_batch, weight = part
        gradients, _, metrics = compute_gradients(
            _with_statistics(state, totals),
            micro_batch,
            hyper,
            key=jax.random.fold_in(step_key(state, hyper), i),
            seg_weight=weight,
            objective=objective,
        )
        sums = (_plus(a, b) for a, b in zip(totals, gradients, strict=True))
        return tuple(sums), metrics

    start = (_no_gradients(state.segmenter), _no_gradients(state.discriminator))
    totals, metrics = jax.lax.scan(
        accumulate, start, (jnp.arange(micro_batches), parts, weights)
    )
    # Divided after the loop: XLA moves the all-reduces of plain sums out of the loop.
    gradients_g, gradients_d = (_divided(x, micro_batches) for x in totals)
    new_state, update_metrics = apply_updates(
        state, (gradients_g, gradients_d), hyper, objective=objective
    )
    return new_state, jax.tree.map(jnp.mean, metrics) | update_metrics


def _no_gradients(player: Player | None) -> Gradients | None:
    """Return gradients of zero, with the player's statistics; None without a player."""
    if player is None:
        return None
    zeros = jax.tree.map(jnp.zeros_like, player.params)
    finite = None if player.loss_scale is None else jnp.array(True)
    return Gradients(zeros, player.batch_stats, player.loss_scale, finite)


def _plus(total: Gradients | None, new: Gradients | None) -> Gradients | None:
    """Add gradients; the statistics are those of `new`.

    All micro-batches start from the step's loss scale, so that the one after the step
    is that after the first of them that overflowed, or that after any of them.
    """
    if total is None:
        return None
    grads = jax.tree.map(jnp.add, total.grads, new.grads)
    if total.finite is None:
        return Gradients(grads, new.batch_stats, None, None)
    loss_scale = jax.tree.map(
        lambda old, x: jnp.where(total.finite, x, old), total.loss_scale, new.loss_scale
    )
    return Gradients(grads, new.batch_stats, loss_scale, total.finite & new.finite)


def _divided(total: Gradients | None, number: int) -> Gradients | None:
    if total is None:
        return None
    return total._replace(grads=jax.tree.map(lambda x: x / number, total.grads))


def _with_statistics(
    state: TrainState, totals: tuple[Gradients, Gradients | None]
) -> TrainState:
    """Return the state with the statistics after a micro-batch."""
    players = (state.segmenter, state.discriminator)
    updated = (
        player and player.replace(batch_stats=g.batch_stats)
        for player, g in zip(players, totals, strict=True)
    )
    return TrainState(state.step, *updated)


def _split(
    x: Shaped[Array, "b ..."], micro_batches: int
) -> Shaped[Array, "m part ..."]:
    """Assign every m-th image to one micro-batch, so that each stays on its device."""
    return jnp.moveaxis(x.reshape(-1, micro_batches, *x.shape[1:]), 1, 0)
