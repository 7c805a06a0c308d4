"""What a training run does between steps: log, save and evaluate."""

import ctypes
import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from tempseg_jax import builders, loop
from tempseg_jax.builders.plan import Plan, micro_batch_size
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import tensorboard
from tempseg_jax.evaluation.adversarial_gradient import adversarial_gradient
from tempseg_jax.evaluation.result import PANELS, Result, save_pictures, score, table
from tempseg_jax.hyperparameters import Hyperparameters
from tempseg_jax.inference.settings import DEFAULT_SETTINGS
from tempseg_jax.objective.losses import Objective
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch, Metrics
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.lock import NoLock, WorkdirLock
from tempseg_jax.workdir.metrics_writer import Silent, Writer

ADVERSARIAL_GRADIENT = jax.jit(
    adversarial_gradient, static_argnames=("images", "objective")
)
"""Computed at evaluations only, so that it costs the training step nothing."""


class Diverged(ValueError):
    """Training stopped, because a loss, a gradient or a parameter is not finite."""


@dataclasses.dataclass
class RunCallbacks:
    """The callbacks of one run."""

    config: ConfigDict
    plan: Plan
    _: dataclasses.KW_ONLY
    jitted_step: Callable[
        [TrainState, Batch, Hyperparameters], tuple[TrainState, Metrics]
    ]
    hyper: Hyperparameters
    objective: Objective
    model: dict[str, Any]  # by `builders.describe_model`
    val_split: Split
    shares: tensorboard.ClassShares
    folder: str | Path
    writer: Writer | Silent
    checkpoints: Checkpoints
    lock: WorkdirLock | NoLock
    last_batch: Batch = dataclasses.field(default_factory=dict)
    evaluations: list[float] = dataclasses.field(default_factory=list)  # seconds

    def callbacks(self) -> loop.Callbacks:
        """Return the callbacks of the training loop."""
        return loop.Callbacks(
            log=self.log,
            log_every=self.config.log_every_steps,
            evaluate=self.evaluate,
            evaluates_after=self.plan.evaluates_after,
            save=self.save,
            save_every=self.config.save_every_steps,
            diverged=functools.partial(
                _diverged, self.checkpoints, self.config.precision
            ),
        )

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Take one step, and remember its batch for the next evaluation."""
        self.last_batch = batch
        return self.jitted_step(state, batch, self.hyper)

    def log(self, number: int, means: dict[str, float]) -> None:
        """Write the metrics, after a check that earlier files could be written."""
        self.lock.check()
        self.checkpoints.check()
        named = {f"train/{name}": value for name, value in means.items()}
        self.writer.write(number, named)
        left = self._left(number, named["train/steps_per_s"])
        self.writer.progress(number, named, left=left)

    def save(self, state: TrainState) -> None:
        """Save the state; the metrics up to it are on disk before it is."""
        self.lock.check()
        self.writer.sync()
        _return_free_memory()
        self.checkpoints.save(state, self.model)

    def evaluate(self, state: TrainState) -> None:
        """Evaluate a saved state; one line of the log has all results."""
        start = time.perf_counter()
        named: dict[str, float] = {}
        if state.discriminator is not None:
            gradient = ADVERSARIAL_GRADIENT(
                state,
                self.last_batch,
                self.hyper,
                images=micro_batch_size(self.config),
                objective=self.objective,
            )
            named = {f"train/{name}": float(x) for name, x in gradient.items()}
        result = _score(self.config, self.objective, state, self.val_split)
        self.writer.message(table(result, self.val_split))
        self.lock.check()
        step = int(state.step)
        self.writer.write(step, named | result.named(prefix="val/"))
        self.writer.show(
            step,
            self.shares.scalars() | tensorboard.scalars(result, self.val_split),
            tensorboard.pictures(
                result, self.val_split, with_confusion=step == self.plan.steps
            ),
        )
        self.writer.sync()
        self.checkpoints.add_scores(step, {"miou": result.scores["miou"]})
        if not jax.process_index():
            try:
                folder = Path(self.folder)
                save_pictures(
                    result,
                    self.val_split,
                    folder / "predictions" / self.val_split.name,
                    workdir=folder,
                    curves=folder / "curves.png",
                )
            except (OSError, ValueError) as error:  # a ValueError of a damaged log
                logging.warning("pictures of the evaluation are not written: %s", error)
        _return_free_memory()
        self.evaluations.append(time.perf_counter() - start)

    def _left(self, number: int, steps_per_s: float) -> str | None:
        """Return the time left in words, with that of evaluations if one was timed."""
        steps_left = self.plan.steps - number
        if not steps_left:
            return None
        seconds, not_timed = steps_left / steps_per_s, ""
        if count := self.plan.evaluations_after(number):
            if self.evaluations:
                seconds += count * sum(self.evaluations) / len(self.evaluations)
            else:
                not_timed = f" + {count} evaluation{'s' if count > 1 else ''}"
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d}{not_timed}"


def _score(
    config: ConfigDict, objective: Objective, state: TrainState, split: Split
) -> Result:
    """Score the segmenter on a split."""
    return score(
        state.segmenter.variables,
        split,
        segmenter=objective.segmenter,
        batch_size=config.eval_batch_size,
        num_workers=config.data.num_workers,
        settings=DEFAULT_SETTINGS,
        temperatures={"one": 1.0, "t_g": builders.training_temperature(config)},
        num_examples=PANELS,
        progress=f"evaluating {split.name}",
    )


def _diverged(
    checkpoints: Checkpoints, precision: str, number: int, player: str, reason: str
) -> Diverged:
    """Return the error for a step that is not finite; it names the last checkpoint."""
    checkpoints.wait()
    good = checkpoints.steps()
    in_float32 = "" if precision == "float32" else " or use precision=float32,"
    return Diverged(
        f"step {number}: {player}: {reason}; the last good checkpoint is "
        f"{f'step {good[-1]}' if good else 'none'}; lower optimizer.learning_rate_"
        f"{loop.PLAYERS[player]},{in_float32} and {'resume' if good else 'start again'}"
        " with --allow_config_change"
    )


def _return_free_memory() -> None:
    """Release freed memory to the operating system, where malloc is glibc's.

    A save or an evaluation allocates other sizes than a training step. Without this,
    free memory that neither can use collects between the blocks that are in use
    (docs/reliability.md).
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
