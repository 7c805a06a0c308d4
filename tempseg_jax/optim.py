"""The learning-rate schedule, SGD for G, Adam for D, and the update of a player."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.dynamic_scale import DynamicScale
from jaxtyping import Array, Float, PyTree

from tempseg_jax.train_state import Player
from tempseg_jax.types import Metrics, Scalar


def warmup_cosine(*, steps: int, warmup_steps: int, cycles: int) -> optax.Schedule:
    """Return a schedule of linear warm-up and cosine decay, from 0 to 1.

    Its value is a factor on the peak learning rate. If `cycles` is above 1, the cosine
    is restarted at equal intervals, without another warm-up (SGDR, Loshchilov & Hutter
    2016).

    Raises:
        ValueError: If the warm-up leaves fewer steps than there are cycles.
    """
    cosine_steps = steps - warmup_steps
    if cycles < 1 or cosine_steps < cycles:
        raise ValueError(
            f"optimizer.warmup_epochs: warming up for {warmup_steps} of {steps} steps "
            f"leaves too few for {cycles} cosine cycle(s); shorten the warm-up, lower "
            "optimizer.cycles, or train longer"
        )
    ends = [warmup_steps + cosine_steps * i // cycles for i in range(cycles + 1)]
    # The first step has 1/warmup of the peak rate; with rate 0 it would be wasted.
    parts = [
        optax.linear_schedule(1 / max(warmup_steps, 1), 1.0, max(warmup_steps - 1, 1))
    ]
    parts += [
        optax.cosine_decay_schedule(1.0, end - start)
        for start, end in zip(ends, ends[1:], strict=False)
    ]
    return optax.join_schedules(parts, ends[:-1])


def temperature_schedule(
    name: str, *, start: float, end: float, steps: int
) -> Float[np.ndarray, "{steps}"]:
    """Return T_G of each step as a factor on `start`: from 1 to `end` / `start`."""
    share = np.linspace(0.0, 1.0, steps) if steps > 1 else np.zeros(1)
    share = TEMPERATURE_SCHEDULES[name](share)
    return (((1 - share) * start + share * end) / start).astype(np.float32)


TEMPERATURE_SCHEDULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "constant": lambda x: 0 * x,
    "linear": lambda x: x,
    "cosine": lambda x: (1 - np.cos(np.pi * x)) / 2,
}
"""The values of `objective.temperature_schedule`: from progress to share of the end."""


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


def update_discriminator(
    player: Player,
    gradients: Gradients,
    *,
    optimizer: str,
    learning_rate: Scalar,
    clip: float | None,
) -> Player:
    """Apply one update of D.

    Args:
        player: D.
        gradients: Its gradients.
        optimizer: A key of `DISCRIMINATOR_OPTIMIZERS`.
        learning_rate: Its learning rate.
        clip: Every parameter is then clipped to plus or minus this; None is no bound.
    """
    make = DISCRIMINATOR_OPTIMIZERS[optimizer]
    player = update_player(player, make(learning_rate=learning_rate), gradients)
    if clip is None:
        return player
    clipped = jax.tree.map(lambda x: jnp.clip(x, -clip, clip), player.params)
    return player.replace(params=clipped)


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
    weight decay. A temperature in L_seg is then such a factor: training with the
    temperatures T in L_seg, T' in L_adv and T_D in L_D is the same as with 1, T' / T,
    T_D / T and 1 / T² as `head_rate`, if the score layers start with 1 / T times the
    values; they start at 0. Let W be the weights of a score layer, x its input, and g
    the gradient with respect to logits / T. With W' = W / T the losses, and so g and
    the gradients of all other layers, are the same. The gradients with respect to W and
    W' are x g / T and x g. The step of W', which has to be the step of W divided by T,
    is therefore 1 / T² times the step that its own gradient would give. Momentum is
    linear in the gradients, and the step from weight decay is linear in W, so that both
    keep this ratio.

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
