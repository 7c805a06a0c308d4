"""Schedules of the learning rate and of the temperature."""

from collections.abc import Callable

import numpy as np
import optax
from jaxtyping import Float


def warmup_cosine(*, steps: int, warmup_steps: int, cycles: int) -> optax.Schedule:
    """Return linear warm-up followed by cosine decay, as a factor on the peak rate.

    If `cycles` is above 1, the cosine is restarted at equal intervals, without another
    warm-up (SGDR, Loshchilov & Hutter 2016).

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
