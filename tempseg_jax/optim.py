"""How each player's parameters move: schedule, SGD for G, Adam for D."""

import jax
import optax
from jaxtyping import PyTree

from tempseg_jax.types import Scalar


def warmup_cosine(*, steps: int, warmup_steps: int, cycles: int) -> optax.Schedule:
    """A factor in [0, 1] on the peak rate: linear warm-up, then cosine to 0.

    `cycles` > 1 restarts the cosine, without another warm-up, at equal intervals
    (SGDR, Loshchilov & Hutter 2016).

    Raises:
        ValueError: the warm-up leaves no step for each cycle.
    """
    cosine_steps = steps - warmup_steps
    if cycles < 1 or cosine_steps < cycles:
        raise ValueError(
            f"optimizer.warmup_epochs: warming up for {warmup_steps} of {steps} steps "
            f"leaves too few for {cycles} cosine cycle(s); shorten the warm-up, lower "
            "optimizer.cycles, or train longer"
        )
    ends = [warmup_steps + cosine_steps * i // cycles for i in range(cycles + 1)]
    # The first step is taken at 1/warmup of the peak, not at 0, which would waste it.
    parts = [
        optax.linear_schedule(1 / max(warmup_steps, 1), 1.0, max(warmup_steps - 1, 1))
    ]
    parts += [
        optax.cosine_decay_schedule(1.0, end - start)
        for start, end in zip(ends, ends[1:], strict=False)
    ]
    return optax.join_schedules(parts, ends[:-1])


def sgd(
    *, learning_rate: Scalar, momentum: Scalar, weight_decay: Scalar
) -> optax.GradientTransformation:
    """The segmenter's: L2 on convolution kernels (λ of eq. 1), then SGD with momentum.

    Its state has the same shape whatever the values, so that they may be traced.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=weight_decay_mask),
        optax.sgd(learning_rate, momentum),
    )


def adam(*, learning_rate: Scalar) -> optax.GradientTransformation:
    """The discriminator's: Adam(0.5, 0.999) as in DCGAN (Radford et al. 2016)."""
    return optax.adam(learning_rate, b1=0.5, b2=0.999)


def weight_decay_mask(params: PyTree) -> PyTree[bool]:
    """Mark convolution kernels: what weight decay acts on; no bias, no BatchNorm."""
    return jax.tree.map(lambda x: x.ndim == 4, params)
