"""The for-loop. Saving, writing and evaluating are callables that it is given."""

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

from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch, Metrics

IN_FLIGHT = 3
"""Steps that may be queued on the device before the oldest one's loss is looked at."""


class Callbacks(NamedTuple):
    """What the loop does besides stepping, and every how many steps."""

    log: Callable[[int, dict[str, float]], None]  # step, means since the last call
    log_every: int
    evaluate: Callable[[TrainState], None]  # saves too: a score belongs to a checkpoint
    evaluate_every: int  # 0: not even at the end
    save: Callable[[TrainState], None]
    save_every: int
    diverged: Callable[[int, str], Exception]  # step, what is not finite


def train(
    state: TrainState,
    batches: Iterator[Batch],
    *,
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    place: Callable[[Batch], Batch],
    first_step: int,
    last_step: int,
    callbacks: Callbacks,
) -> tuple[TrainState, bool]:
    """Take the steps after `first_step`; return the state, and whether a signal came.

    They end with `last_step`, or with the one during which SIGTERM or Ctrl-C came.

    The device always has work queued: losses are read, and logged, `IN_FLIGHT` steps
    late. Before anything is evaluated or saved, every loss so far has been read and was
    finite, and so is the state. What was not yet logged is logged with a save: none of
    it is lost to a start from there.

    Raises:
        Exception: what `callbacks.diverged` makes of what is not finite.
    """
    meter, queue = _Meter(), deque()

    def read_losses(leave: int) -> None:
        while len(queue) > leave:
            number, metrics = queue.popleft()
            if not math.isfinite(float(metrics["loss"])):
                values = _floats(metrics)
                raise callbacks.diverged(number, f"the loss is not finite ({values})")
            meter.add(metrics)
            if number % callbacks.log_every == 0:
                callbacks.log(number, meter.means())

    with _Interruption() as interruption:
        for number in range(first_step + 1, last_step + 1):
            batch = meter.waiting(lambda: next(batches))
            state, metrics = step(state, place(batch))
            if number == first_step + 1:
                meter.restart()  # it was compiled
            queue.append((number, metrics))
            read_losses(leave=IN_FLIGHT)

            stop = interruption.came_by(number) or number == last_step
            every = callbacks.evaluate_every
            evaluate = every and (number == last_step or number % every == 0)
            save = evaluate or stop or number % callbacks.save_every == 0
            if save:
                read_losses(leave=0)
                if number % callbacks.log_every:
                    callbacks.log(number, meter.means())
                if not _all_finite(state):
                    reason = "its loss was finite, what it made of the parameters not"
                    raise callbacks.diverged(number, reason)
                (callbacks.evaluate if evaluate else callbacks.save)(state)
                meter.restart()
            if stop:
                break
        return state, interruption.came  # perhaps while the last step was evaluated


@jax.jit
def _all_finite(state: TrainState) -> Bool[Array, ""]:
    """A finite loss may have a gradient, or make a step, that is not."""
    return jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state)]).all()


class _Interruption:
    """Tells after which step to stop because of SIGTERM or Ctrl-C, so that it is saved.

    A second signal ends the program at once. Of several processes all must stop after
    the same step, whenever SIGTERM reached each: JAX's preemption service agrees on it.
    """

    def __init__(self):
        self.came, self._before = False, {}

    def __enter__(self) -> "_Interruption":
        if jax.process_count() == 1 and (
            threading.current_thread() is threading.main_thread()
        ):
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as by nohup … &
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def came_by(self, step: int) -> bool:
        """Return whether this step is the one to stop after."""
        if jax.process_count() > 1:
            self.came = multihost_utils.reached_preemption_sync_point(step)
        return self.came

    def _note(self, *_: object) -> None:
        self.came = True
        self._restore()
        os.write(2, b"\nStopping after this step; once more, and it is now.\n")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Meter:
    """Means of the steps' metrics, and where the time between two logs went."""

    def __init__(self) -> None:
        self._metrics: list[Metrics] = []
        self.restart()

    def restart(self) -> None:
        """Start the clock anew: compiling, evaluating, saving are not training time."""
        self._start, self._waited = time.perf_counter(), 0.0

    def waiting(self, wait: Callable[[], Batch]) -> Batch:
        """Return what `wait` does, counting the time as waiting for data."""
        start = time.perf_counter()
        batch = wait()
        self._waited += time.perf_counter() - start
        self._batch_size = len(batch["image"]) * jax.process_count()
        return batch

    def add(self, metrics: Metrics) -> None:
        """Keep one step's metrics."""
        self._metrics.append(metrics)

    def means(self) -> dict[str, float]:
        """Return the means since the last call, and start again."""
        seconds = time.perf_counter() - self._start
        steps = jax.device_get(self._metrics)
        means = {k: float(np.mean([m[k] for m in steps])) for k in steps[0]}
        skipped = [k for k in means if k.startswith("skipped_")]
        if skipped:  # with float16: the number of steps, not their mean
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
