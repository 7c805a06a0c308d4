"""Section 3 of the paper: two players, and one step that moves both.

Pure functions of arrays. The networks are Linen modules, which are values: passed as
static arguments to `jax.jit` they compile once for all states and hyperparameters.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.training.dynamic_scale import DynamicScale
from jaxtyping import Array, Float, Int, PyTree, UInt8

from tempseg_jax import losses, optim
from tempseg_jax.types import Batch, Metrics, Scalar


class Hyperparameters(NamedTuple):
    """The numbers of an experiment. All are traced: changing one compiles nothing."""

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


class Player(flax.struct.PyTreeNode):
    """A network's parameters and all that training moves with them."""

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    loss_scale: DynamicScale | None  # with float16 alone

    @property
    def variables(self) -> dict[str, PyTree]:
        """What `Module.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class TrainState(flax.struct.PyTreeNode):
    """All that a checkpoint must hold for training to go on exactly."""

    step: PyTree  # Int[Array, ""]
    segmenter: Player
    discriminator: Player | None  # none with α = 0


def init_player(
    variables: dict[str, PyTree],
    optimizer: optax.GradientTransformation,
    *,
    loss_scale: DynamicScale | None,
) -> Player:
    """Start a player from its network's variables."""
    params = variables["params"]
    return Player(
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        loss_scale=loss_scale,
    )


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

    One forward pass of the segmenter G serves both. Without a discriminator this is
    supervised training: L_G = L_seg, with nothing else built or run.
    """
    labels, adversary = batch["label"], losses.ADVERSARIES[gan]
    dropout = jax.random.fold_in(jax.random.key(hyper.seed), state.step)
    factor = hyper.schedule[state.step]

    def judge(params_d, batch_stats, x):
        variables = {"params": params_d, "batch_stats": batch_stats}
        scores, updated = discriminator.apply(
            variables, x, train=True, mutable=["batch_stats"]
        )
        return scores, updated["batch_stats"]

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
        loss_seg = losses.cross_entropy(
            logits, labels, temperature=hyper.temperature_seg
        )
        loss, metrics = loss_seg, {"loss_seg": loss_seg}
        if discriminator is not None:
            player = state.discriminator
            p = fake(logits, hyper.temperature_adv)
            d_fake, _ = judge(player.params, player.batch_stats, p)
            loss_adv = adversary.segmenter(d_fake)
            loss = loss_seg + hyper.alpha * loss_adv
            metrics["loss_adv"] = loss_adv
        batch_stats = updated.get("batch_stats", {})
        return loss, (logits, batch_stats, {"loss": loss, **metrics})

    scale, finite, (_, (logits, batch_stats, metrics)), grads = _value_and_grad(
        loss_g, state.segmenter
    )
    sgd = optim.sgd(
        learning_rate=factor * hyper.learning_rate_g,
        momentum=hyper.momentum,
        weight_decay=hyper.weight_decay,
    )
    player_g = _move(state.segmenter, sgd, grads, batch_stats, scale, finite)
    metrics |= {"learning_rate": factor * hyper.learning_rate_g}
    metrics |= _step_metrics("g", player_g, grads, finite)
    if discriminator is None:
        return TrainState(state.step + 1, player_g, None), metrics

    def loss_d(params):
        """L_D (eq. 3)."""
        real = losses.one_hot(labels, num_classes=logits.shape[-1])
        d_real, batch_stats = judge(params, state.discriminator.batch_stats, real)
        p = fake(jax.lax.stop_gradient(logits), hyper.temperature_d)
        d_fake, batch_stats = judge(params, batch_stats, p)
        loss = adversary.discriminator(d_real, d_fake)
        means = {"d_real": jnp.mean(d_real), "d_fake": jnp.mean(d_fake)}
        return loss, (batch_stats, {"loss_d": loss, **means})

    scale, finite, (_, (batch_stats, metrics_d)), grads = _value_and_grad(
        loss_d, state.discriminator
    )
    adam = optim.adam(learning_rate=factor * hyper.learning_rate_d)
    player_d = _move(state.discriminator, adam, grads, batch_stats, scale, finite)
    metrics |= metrics_d | _step_metrics("d", player_d, grads, finite)
    return TrainState(state.step + 1, player_g, player_d), metrics


def predict(
    variables: dict[str, PyTree],
    image: UInt8[Array, "b h w 3"],
    *,
    segmenter: nn.Module,
) -> Float[Array, "b h w k"]:
    """Return the logits of a trained segmenter: no dropout, running statistics."""
    return segmenter.apply(variables, image, train=False)


def _value_and_grad(loss: Callable, player: Player) -> tuple:
    """Return (loss scale, are the gradients finite, (loss, aux), gradients)."""
    if player.loss_scale is not None:
        return player.loss_scale.value_and_grad(loss, has_aux=True)(player.params)
    value, grads = jax.value_and_grad(loss, has_aux=True)(player.params)
    return None, None, value, grads


def _move(
    player: Player,
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    batch_stats: PyTree,
    loss_scale: DynamicScale | None,
    finite: Array | None,
) -> Player:
    """Apply one update; with a loss scale, none where the gradients overflowed."""
    updates, opt_state = optimizer.update(grads, player.opt_state, player.params)
    moved = player.replace(
        params=optax.apply_updates(player.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    if finite is not None:
        moved = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), moved, player
        )
    return moved.replace(loss_scale=loss_scale)


def _step_metrics(
    name: str, player: Player, grads: PyTree, finite: Array | None
) -> dict:
    """What tells that a player is learning: its gradient's norm, its loss scale."""
    norm = optax.global_norm(grads)
    if finite is None:
        return {f"grad_norm_{name}": norm}
    return {
        f"grad_norm_{name}": jnp.where(finite, norm, 0.0),
        f"loss_scale_{name}": player.loss_scale.scale,
        f"skipped_{name}": 1.0 - finite,
    }
