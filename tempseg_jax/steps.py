"""Section 3 of the paper: two players, and one step that moves both.

Pure functions of arrays. The networks are Linen modules, which are values: passed as
static arguments to `jax.jit` they compile once for all states and hyperparameters.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.dynamic_scale import DynamicScale
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, UInt8

from tempseg_jax import losses, optim
from tempseg_jax.train_state import Player, TrainState
from tempseg_jax.types import Batch, Metrics, Scalar


class Hyperparameters(NamedTuple):
    """The numbers of an experiment. All are traced: changing one compiles nothing.

    (But the number of steps, which is the length of the schedule.)
    """

    seed: int | Int[Array, ""]
    schedule: PyTree  # Float[Array, "steps"]: a factor on both rates, by step
    learning_rate_g: Scalar
    learning_rate_d: Scalar
    momentum: Scalar
    weight_decay: Scalar  # λ
    temperature_seg: Scalar  # T_G where it acts on L_seg
    temperature_adv: Scalar  # T_G where it acts on L_adv
    temperature_d: Scalar  # T_D
    alpha: Scalar


class Gradients(NamedTuple):
    """Where one player should go, and what looking for it left behind."""

    grads: PyTree
    batch_stats: PyTree
    loss_scale: DynamicScale | None
    finite: Array | None  # did float16 hold the gradients; None where it must not


def train_step(
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    *,
    segmenter: nn.Module,
    discriminator: nn.Module | None,
    gan: str,
    mask_void: bool,
) -> tuple[TrainState, Metrics]:
    """Update both players once, each against the other's old parameters.

    Without a discriminator this is supervised training: L_G = L_seg, with nothing else
    built or run.
    """
    gradients, metrics = compute_gradients(
        state,
        batch,
        hyper,
        dropout=dropout_key(state, hyper),
        seg_weight=1.0,
        segmenter=segmenter,
        discriminator=discriminator,
        gan=gan,
        mask_void=mask_void,
    )
    state, moved = apply_updates(state, gradients, hyper)
    return state, metrics | moved


def dropout_key(state: TrainState, hyper: Hyperparameters) -> PRNGKeyArray:
    """Return this step's randomness: a function of the seed and the step."""
    return jax.random.fold_in(jax.random.key(hyper.seed), state.step)


def compute_gradients(
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    *,
    dropout: PRNGKeyArray,
    seg_weight: Scalar,
    segmenter: nn.Module,
    discriminator: nn.Module | None,
    gan: str,
    mask_void: bool,
) -> tuple[tuple[Gradients, Gradients | None], Metrics]:
    """Return both players' gradients (eqs. 1 to 5); one forward pass of G serves both.

    `seg_weight` multiplies L_seg: 1, but where a batch is played in parts.
    """
    labels, adversary = batch["label"], losses.ADVERSARIES[gan]

    def apply_discriminator(params_d, batch_stats, x):
        variables = {"params": params_d, "batch_stats": batch_stats}
        scores, updated = discriminator.apply(
            variables, x, train=True, mutable=["batch_stats"]
        )
        return scores, updated.get("batch_stats", {})

    def fake(logits, temperature):
        return losses.probabilities(
            logits, labels, temperature=temperature, mask_void=mask_void
        )

    def loss_g(params):
        """L_G = L_seg + α L_adv (eq. 5)."""
        variables = state.segmenter.replace(params=params).variables
        logits, updated = segmenter.apply(
            variables,
            batch["image"],
            train=True,
            rngs={"dropout": dropout},
            mutable=["batch_stats"],
        )
        loss_seg = seg_weight * losses.cross_entropy(
            logits, labels, temperature=hyper.temperature_seg
        )
        loss, metrics = loss_seg, {"loss_seg": loss_seg}
        if discriminator is not None:
            player = state.discriminator
            p = fake(logits, hyper.temperature_adv)
            d_fake, _ = apply_discriminator(player.params, player.batch_stats, p)
            loss_adv = adversary.segmenter(d_fake)
            loss = loss_seg + hyper.alpha * loss_adv
            metrics["loss_adv"] = loss_adv
        batch_stats = updated.get("batch_stats", {})
        return loss, (batch_stats, logits, {"loss": loss, **metrics})

    gradients_g, logits, metrics = _differentiate(loss_g, state.segmenter)
    if discriminator is None:
        return (gradients_g, None), metrics

    def loss_d(params):
        """L_D (eq. 3)."""
        real = losses.one_hot(labels, num_classes=logits.shape[-1])
        d_real, batch_stats = apply_discriminator(
            params, state.discriminator.batch_stats, real
        )
        p = fake(jax.lax.stop_gradient(logits), hyper.temperature_d)
        d_fake, batch_stats = apply_discriminator(params, batch_stats, p)
        loss = adversary.discriminator(d_real, d_fake)
        means = {"d_real": jnp.mean(d_real), "d_fake": jnp.mean(d_fake)}
        return loss, (batch_stats, None, {"loss_d": loss, **means})

    gradients_d, _, metrics_d = _differentiate(loss_d, state.discriminator)
    return (gradients_g, gradients_d), metrics | metrics_d


def apply_updates(
    state: TrainState,
    gradients: tuple[Gradients, Gradients | None],
    hyper: Hyperparameters,
) -> tuple[TrainState, Metrics]:
    """Move both players along; the metrics tell whether they did, and how far."""
    factor = hyper.schedule[state.step]
    rate_g, rate_d = factor * hyper.learning_rate_g, factor * hyper.learning_rate_d
    sgd = optim.sgd(
        learning_rate=rate_g, momentum=hyper.momentum, weight_decay=hyper.weight_decay
    )
    player_g = _update(state.segmenter, sgd, gradients[0])
    player_d, metrics = None, {"learning_rate": rate_g}
    metrics |= _gradient_metrics("g", gradients[0])
    if gradients[1] is not None:
        player_d = _update(
            state.discriminator, optim.adam(learning_rate=rate_d), gradients[1]
        )
        metrics |= _gradient_metrics("d", gradients[1])
    return TrainState(state.step + 1, player_g, player_d), metrics


def predict(
    variables: dict[str, PyTree],
    image: UInt8[Array, "b h w 3"],
    *,
    segmenter: nn.Module,
) -> Float[Array, "b h w k"]:
    """Return the logits of a trained segmenter: no dropout, running statistics."""
    return segmenter.apply(variables, image, train=False)


def _differentiate(loss: Callable, player: Player) -> tuple[Gradients, PyTree, Metrics]:
    """Differentiate `params -> (loss, (batch_stats, output, metrics))`."""
    if player.loss_scale is None:
        grad = jax.grad(loss, has_aux=True)
        grads, (batch_stats, output, metrics) = grad(player.params)
        return Gradients(grads, batch_stats, None, None), output, metrics
    grad = player.loss_scale.value_and_grad(loss, has_aux=True)
    scale, finite, (_, (batch_stats, output, metrics)), grads = grad(player.params)
    return Gradients(grads, batch_stats, scale, finite), output, metrics


def _update(
    player: Player, optimizer: optax.GradientTransformation, gradients: Gradients
) -> Player:
    """Apply one update; with a loss scale, none where the gradients overflowed."""
    updates, opt_state = optimizer.update(
        gradients.grads, player.opt_state, player.params
    )
    moved = player.replace(
        params=optax.apply_updates(player.params, updates),
        batch_stats=gradients.batch_stats,
        opt_state=opt_state,
    )
    if gradients.finite is not None:
        moved = jax.tree.map(
            lambda new, old: jnp.where(gradients.finite, new, old), moved, player
        )
    return moved.replace(loss_scale=gradients.loss_scale)


def _gradient_metrics(name: str, gradients: Gradients) -> Metrics:
    """Return what tells that a player is learning: gradient norm and loss scale."""
    norm = optax.tree.norm(gradients.grads)
    if gradients.finite is None:
        return {f"grad_norm_{name}": norm}
    return {
        f"grad_norm_{name}": jnp.where(gradients.finite, norm, 0.0),
        f"loss_scale_{name}": gradients.loss_scale.scale,
        f"skipped_{name}": 1.0 - gradients.finite,
    }
