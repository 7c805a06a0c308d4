"""SGD for G, Adam for D, and the update of a player."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.training.dynamic_scale import DynamicScale
from jaxtyping import Array, Float, PyTree

from tempseg_jax.train_state import Player
from tempseg_jax.types import Metrics, Scalar


def sgd(
    *, learning_rate: Scalar, momentum: Scalar, weight_decay: Scalar
) -> optax.GradientTransformation:
    """Return the segmenter's optimizer: weight decay (λ of eq. 1), SGD with momentum.

    The shape of its state does not depend on the values, so that they can be traced.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=weight_decay_mask),
        optax.sgd(learning_rate, momentum),
    )


def adam(*, learning_rate: Scalar) -> optax.GradientTransformation:
    """Return the discriminator's optimizer: Adam(0.5, 0.999) (Radford et al. 2016)."""
    return optax.adam(learning_rate, b1=0.5, b2=0.999)


def adam_no_momentum(*, learning_rate: Scalar) -> optax.GradientTransformation:
    """Return Adam(0, 0.9), the optimizer of WGAN-GP (Gulrajani et al. 2017)."""
    return optax.adam(learning_rate, b1=0.0, b2=0.9)


def rmsprop(*, learning_rate: Scalar) -> optax.GradientTransformation:
    """Return PyTorch's RMSProp, as in WGAN's code (Arjovsky et al. 2017).

    The denominator is √v + 1e-8. optax's own is √(v + 1e-8), which is at least 1e-4:
    more than the gradients of D, which then hardly learns.
    """
    return optax.rmsprop(learning_rate, decay=0.99, eps_in_sqrt=False)


DISCRIMINATOR_OPTIMIZERS = {
    "adam": adam,
    "adam_no_momentum": adam_no_momentum,
    "rmsprop": rmsprop,
}
"""The values of `optimizer.discriminator`; each is called with the learning rate."""


def weight_decay_mask(params: PyTree) -> PyTree[bool]:
    """Mark the convolution kernels; biases and BatchNorm have no weight decay."""
    return jax.tree.map(lambda x: x.ndim == 4, params)


def head_mask(tree: PyTree) -> PyTree[bool]:
    """Mark the leaves of score layers, whose names start with `score`.

    Args:
        tree: Parameters, or a tree that has trees of parameters, such as a player.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_in_score(path), tree)


def _is_in_score(path: tuple[Any, ...]) -> bool:
    return any(
        isinstance(entry, jax.tree_util.DictKey) and str(entry.key).startswith("score")
        for entry in path
    )


class Gradients(NamedTuple):
    """Gradients of one player, and the state that its forward pass updated."""

    grads: PyTree
    batch_stats: PyTree
    loss_scale: DynamicScale | None
    finite: Array | None  # whether all gradients are finite (float16 only, else None)


def differentiate(loss: Callable, player: Player) -> tuple[Gradients, PyTree, Metrics]:
    """Differentiate `params -> (loss, (batch_stats, output, metrics))`."""
    if player.loss_scale is None:
        grad = jax.grad(loss, has_aux=True)
        grads, (batch_stats, output, metrics) = grad(player.params)
        return Gradients(grads, batch_stats, None, None), output, metrics
    grad = player.loss_scale.value_and_grad(loss, has_aux=True)
    scale, finite, (_, (batch_stats, output, metrics)), grads = grad(player.params)
    return Gradients(grads, batch_stats, scale, finite), output, metrics


def update_player(
    player: Player, optimizer: optax.GradientTransformation, gradients: Gradients
) -> Player:
    """Apply one optimizer update; skip it if float16 gradients overflowed."""
    updates, opt_state = optimizer.update(
        gradients.grads, player.opt_state, player.params
    )
    updated = player.replace(
        params=optax.apply_updates(player.params, updates),
        batch_stats=gradients.batch_stats,
        opt_state=opt_state,
    )
    if gradients.finite is not None:
        updated = jax.tree.map(
            lambda new, old: jnp.where(gradients.finite, new, old), updated, player
        )
    return updated.replace(loss_scale=gradients.loss_scale)


def update_segmenter(
    player: Player,
    gradients: Gradients,
    *,
    learning_rate: Scalar,
    head_rate: Scalar,
    momentum: Scalar,
    weight_decay: Scalar,
    l1: Scalar | None = None,
) -> Player:
    """Apply one update of SGD, with another learning rate for the score layers.

    `head_rate` is a factor on their learning rate, but not on its product with their
    weight decay. A temperature in L_seg is such a factor: training with the
    temperatures T in L_seg, T' in L_adv and T_D in L_D is the same as with 1, T' / T,
    T_D / T and 1 / T² as `head_rate`, because the score layers start at 0 (the proof is
    in docs/results.md). This does not hold with `l1`.

    With `l1`, the penalty l1 · Σ |W| of the kernels is part of the loss. Its step
    (`_l1_step`) follows that of SGD. As with weight decay, `head_rate` is not a factor
    of it.
    """
    rest = sgd(
        learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay
    )
    head = sgd(
        learning_rate=learning_rate * head_rate,
        momentum=momentum,
        weight_decay=weight_decay / head_rate,
    )
    # XLA computes only what is chosen. With a factor of 1 it is what `rest` alone
    # would compute, in every bit, because the factor changes scalars only.
    updated = jax.tree.map(
        lambda is_head, a, b: a if is_head else b,
        head_mask(player),
        update_player(player, head, gradients),
        update_player(player, rest, gradients),
    )
    if l1 is None:
        return updated
    return _l1_step(
        updated, gradients, learning_rate=learning_rate, momentum=momentum, l1=l1
    )


def _l1_step(
    player: Player,
    gradients: Gradients,
    *,
    learning_rate: Scalar,
    momentum: Scalar,
    l1: Scalar,
) -> Player:
    """Take the proximal step of the penalty l1 · Σ |W|; none if gradients overflowed.

    The threshold is the learning rate times l1 / (1 - momentum), because with momentum
    a constant gradient g also moves the weights by the learning rate times
    g / (1 - momentum).
    """
    bound = learning_rate * l1 / (1 - momentum)
    if gradients.finite is not None:
        bound = jnp.where(gradients.finite, bound, 0.0)
    params = jax.tree.map(
        lambda is_kernel, x: soft_threshold(x, bound) if is_kernel else x,
        weight_decay_mask(player.params),
        player.params,
    )
    return player.replace(params=params)


def soft_threshold(x: Float[Array, "*b"], bound: Scalar) -> Float[Array, "*b"]:
    """Return sign(x) max(|x| - bound, 0): the proximal step of an L1 penalty.

    Unlike a step along the subgradient sign(x), it makes weights exactly zero, and
    momentum does not carry it on.
    """
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - bound, 0)


def gradient_metrics(name: str, gradients: Gradients) -> Metrics:
    """Return a player's gradient norm and, in float16, loss scale and skipped steps."""
    norm = _norm(gradients.grads)
    if gradients.finite is None:
        return {f"grad_norm_{name}": norm}
    return {
        f"grad_norm_{name}": jnp.where(gradients.finite, norm, 0.0),
        f"loss_scale_{name}": gradients.loss_scale.scale,
        f"skipped_{name}": 1.0 - gradients.finite,
    }


def _norm(tree: PyTree) -> Float[Array, ""]:
    """Return the Euclidean norm of all leaves together.

    Kernels are summed over their last axis first, and all that remains in one sum: on a
    GPU, a sum of its own for each leaf would cost one more kernel for each.
    """
    squares = [jnp.square(x) for x in jax.tree.leaves(tree)]
    rows = [(jnp.sum(x, axis=-1) if x.ndim > 1 else x).ravel() for x in squares]
    # The barrier keeps XLA from summing the parts of the concatenation one by one.
    joined = jax.lax.optimization_barrier(jnp.concatenate(rows))
    return jnp.sqrt(jnp.sum(joined))
