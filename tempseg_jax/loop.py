"""The training loop; saving, logging and evaluation are callables."""

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool

from tempseg_jax.train_state import Player, TrainState
from tempseg_jax.types import Batch, Metrics

IN_FLIGHT = 3
"""Number of steps that may be queued on the device before a loss is read."""

MIN_LOSS_SCALE = 2.0**-14
"""A loss scale below it ends a float16 run: gradients of 1e-3 would underflow.

It is reached from 2¹⁵ by 30 steps in a row whose gradients overflow.
"""

PLAYERS = {"segmenter": "g", "discriminator": "d"}
"""The players, and the ends of the names of their metrics."""


class Callbacks(NamedTuple):
    """Functions that the loop calls, and the numbers of steps between calls."""

    log: Callable[[int, dict[str, float]], None]  # step, means since the last call
    log_every: int
    evaluate: Callable[[TrainState], None]  # of a state that was just saved
    evaluates_after: Callable[[int], bool]  # whether a step is followed by it
    save: Callable[[TrainState], None]
    save_every: int
    diverged: Callable[[int, str, str], Exception]  # step, player, reason


def train(
    state: TrainState,
    batches: Iterator[Batch],
    *,
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    place: Callable[[Batch], Batch],
    start_step: int,
    last_step: int,
    callbacks: Callbacks,
) -> tuple[TrainState, bool]:
    """Run the steps after `start_step` up to and including `last_step`.

    SIGTERM or Ctrl-C ends training after the current step, whose state is saved.

    Losses are read and logged `IN_FLIGHT` steps late, so that the device always has
    work queued. Before the state is evaluated or saved, all earlier losses are read and
    the state is checked, so that only finite states are saved. Steps that are not yet
    logged are logged before the save, so that the log of a resumed run has every step.

    Returns:
        The last state, and whether training was interrupted by a signal.

    Raises:
        Exception: The result of `callbacks.diverged`, if a loss or the state is not
            finite, or a loss scale is below `MIN_LOSS_SCALE`.
    """
    meter, queue = _Meter(), deque()

    def read_losses(leave: int) -> None:
        while len(queue) > leave:
            number, metrics = queue.popleft()
            if found := _divergence(metrics):
                raise callbacks.diverged(number, *found)
            meter.add(metrics)
            if number % callbacks.log_every == 0:
                callbacks.log(number, meter.means())

    with _Interruption() as interruption:
        for number in range(start_step + 1, last_step + 1):
            batch = meter.next_batch(batches)
            state, metrics = step(state, place(batch))
            if number == start_step + 1:
                meter.restart()  # exclude the compilation in the first step
            queue.append((number, metrics))
            read_losses(leave=IN_FLIGHT)

            stop = interruption.stops_after(number) or number == last_step
            evaluate = callbacks.evaluates_after(number)
            save = evaluate or stop or number % callbacks.save_every == 0
            if save:
                read_losses(leave=0)
                if number % callbacks.log_every:
                    callbacks.log(number, meter.means())
                if found := _divergence_of_state(state):
                    raise callbacks.diverged(number, *found)
                callbacks.save(state)  # first: an evaluation may take long
                if evaluate:
                    callbacks.evaluate(state)
                meter.restart()
            if stop:
                break
        return state, interruption.requested  # possibly during the last evaluation


def _divergence(metrics: Metrics) -> tuple[str, str] | None:
    """Return the player that has diverged in a step, and why; None if none has.

    If L_seg is finite and L_D is not, L_G has L_adv of a discriminator that diverged.
    """
    losses = {"loss_seg": "segmenter", "loss_d": "discriminator", "loss": "segmenter"}
    scales = {f"loss_scale_{end}": player for player, end in PLAYERS.items()}
    names = (losses | scales).keys() & metrics.keys()
    values = jax.device_get({name: metrics[name] for name in names})
    for name, player in losses.items():
        if not math.isfinite(values.get(name, 0)):
            return player, f"the loss is not finite ({_floats(metrics)})"
    for name, player in scales.items():
        if values.get(name, 1) < MIN_LOSS_SCALE:
            reason = "its gradients overflow in float16 with every loss scale"
            return player, f"{reason} ({_floats(metrics)})"
    return None


def _divergence_of_state(state: TrainState) -> tuple[str, str] | None:
    """Return the same of a state; a finite loss may have infinite gradients."""
    for player in PLAYERS:
        if not _all_finite(getattr(state, player)):
            return player, "the loss was finite, but the updated state is not"
    return None


@jax.jit
def _all_finite(player: Player | None) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(player)
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in leaves], bool))


class _Interruption:
    """Stops training after the current step on SIGTERM or Ctrl-C.

    A second signal ends the program at once. In a run of several processes, JAX's
    preemption service chooses the step after which all of them stop, because the signal
    may reach them at different times. It is told by SIGTERM, which Ctrl-C becomes; only
    a second Ctrl-C ends a process at once, and with it the run.
    """

    def __init__(self):
        self.requested, self._before = False, {}

    def __enter__(self) -> "_Interruption":
        if threading.current_thread() is threading.main_thread():
            handlers = {signal.SIGTERM: self._request, signal.SIGINT: self._request}
            if jax.process_count() > 1:
                handlers = {signal.SIGINT: self._tell_all}
            for number, handler in handlers.items():
                if signal.getsignal(number) is not signal.SIG_IGN:  # e.g. nohup … &
                    self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def stops_after(self, step: int) -> bool:
        """Return whether training must stop after this step."""
        if jax.process_count() > 1:
            self.requested = multihost_utils.reached_preemption_sync_point(step)
        return self.requested

    def _request(self, *_: object) -> None:
        self.requested = True
        self._restore()
        os.write(2, b"\nStopping after this step; repeat to stop at once.\n")

    def _tell_all(self, *_: object) -> None:
        self._restore()
        os.kill(os.getpid(), signal.SIGTERM)  # to JAX's preemption service
        os.write(2, b"\nAll processes stop after a step; repeat to stop at once.\n")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Meter:
    """Means of the metrics between two log lines, throughput, and wait for data."""

    def __init__(self) -> None:
        self._metrics: list[Metrics] = []
        self.restart()

    def restart(self) -> None:
        """Restart the clock, to exclude compilation, evaluation and saving."""
        self._start, self._waited = time.perf_counter(), 0.0

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """Return the next batch, and count the time as waiting for data."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        self._batch_size = len(batch["image"]) * jax.process_count()
        return batch

    def add(self, metrics: Metrics) -> None:
        """Add the metrics of one step."""
        self._metrics.append(metrics)

    def means(self) -> dict[str, float]:
        """Return the means since the last call, and reset."""
        seconds = time.perf_counter() - self._start
        steps = jax.device_get(self._metrics)
        means = {k: float(np.mean([m[k] for m in steps])) for k in steps[0]}
        skipped = [k for k in means if k.startswith("skipped_")]
        if skipped:  # float16 only: a count of steps, not a mean
            means["skipped"] = float(sum(m[k] for m in steps for k in skipped))
        rate = len(steps) / seconds
        means |= {
            "steps_per_s": rate,
            "images_per_s": rate * self._batch_size,
            "data_wait": self._waited / seconds,
        }
        self._metrics = []
        self.restart()
        return means


def _floats(metrics: Metrics) -> dict[str, float]:
    return {k: float(v) for k, v in jax.device_get(metrics).items()}
