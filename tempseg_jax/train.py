"""Train one experiment: `--mode=train`."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from tempseg_jax import (
    builders,
    config_fields,
    gradient_accumulation,
    loop,
    mesh,
    resume,
    semi_supervised,
    steps,
)
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.subset import evenly_spaced
from tempseg_jax.evaluation import tensorboard
from tempseg_jax.evaluation.adversarial_gradient import adversarial_gradient
from tempseg_jax.evaluation.result import PANELS, Result, save_pictures, score, table
from tempseg_jax.inference import predictor, sliding_window
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.io import atomic
from tempseg_jax.objective.losses import Objective
from tempseg_jax.plan import Plan, micro_batch_size
from tempseg_jax.steps import Hyperparameters
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch, Metrics
from tempseg_jax.workdir import checkpoint_folder, wandb_run
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.lock import NoLock, WorkdirLock, training_lock
from tempseg_jax.workdir.metrics_writer import Silent, Writer

TRAIN_STEP = jax.jit(
    steps.train_step, static_argnames=("objective",), donate_argnames=("state",)
)
"""The jitted training step; runs with equal objectives share the compiled step."""

ACCUMULATED_STEP = jax.jit(
    gradient_accumulation.accumulated_step,
    static_argnames=("micro_batches", "objective"),
    donate_argnames=("state",),
)
"""The jitted training step with gradient accumulation."""


ADVERSARIAL_GRADIENT = jax.jit(
    adversarial_gradient, static_argnames=("images", "objective")
)
"""Computed at evaluations only, so that it costs the training step nothing."""


class Diverged(ValueError):
    """Training stopped, because a loss or a parameter is not finite."""


def train(
    config: ConfigDict,
    folder: str | Path,
    *,
    allow_change: bool,
    fallback: bool = True,
) -> bool:
    """Train a new run, or resume from the latest checkpoint in the workdir.

    Args:
        config: The config of the run.
        folder: The workdir.
        allow_change: Whether to resume although the workdir was started with another
            config.
        fallback: Whether to resume from an older checkpoint if the latest is damaged,
            which is then renamed.

    Returns:
        True if training was interrupted by SIGTERM or Ctrl-C; the state is saved and
        training can be resumed.

    Raises:
        ValueError, OSError: If the config, the data or the workdir cannot be used,
            or another training runs in the workdir.
        Diverged: If a loss or a parameter is not finite.
    """
    config_fields.check_fields(config)
    if config.writer.wandb:
        wandb_run.check_installed()
    images = builders.load_training_images(config)
    semi_supervised.check(config)  # before a folder of images is read
    train_split, unlabeled_split = semi_supervised.divide(config, images)
    val_split = evenly_spaced(
        builders.load_split(config, config.data.val_split),
        config.evaluate_images or None,
    )
    tiles = builders.load_tiles(config, train_split)
    unlabeled = builders.load_unlabeled(config, unlabeled_split)
    plan = Plan.of(config, images=len(images.examples))
    devices = mesh.data_mesh(
        batch_size=micro_batch_size(config),
        unlabeled_batch_size=semi_supervised.unlabeled_batch_size(config),
    )
    hyper = builders.hyperparameters(
        config, plan, class_weights=builders.load_class_weights(config, train_split)
    )
    teacher = _load_teacher(config, train_split)
    with _locked(folder) as lock:
        checkpoints = Checkpoints(folder)
        objective, state, model = resume.first_state(
            config,
            folder,
            checkpoints,
            split=train_split,
            devices=devices,
            allow_change=allow_change,
            fallback=fallback,
        )
        if teacher is not None:
            objective, hyper = builders.with_teacher(
                config,
                objective,
                hyper,
                teacher=teacher.segmenter,
                variables=teacher.variables,
            )
        hyper = mesh.replicate(hyper, devices)
        first_step = int(state.step)
        if not jax.process_index():
            semi_supervised.write_lists(
                config, folder, images, labeled=train_split, unlabeled=unlabeled_split
            )
        evaluate_first = plan.evaluates_after(first_step) and (
            resume.scores_are_missing(checkpoints, folder, step=first_step)
        )
        with (
            _writer(config, folder, first_step, last_step=plan.steps) as writer,
            _closing(checkpoints),
        ):
            counted = semi_supervised.counted(train_split, unlabeled_split)
            writer.message(
                f"{'Resuming' if first_step else 'Starting'} at step {first_step} of "
                f"{plan.steps}: {counted}, "
                f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
            )
            shares = tensorboard.ClassShares(train_split.class_names)
            run = _Run(
                config,
                plan,
                step=jitted_step(config, objective),
                hyper=hyper,
                objective=objective,
                model=model,
                val_split=val_split,
                shares=shares,
                folder=folder,
                writer=writer,
                checkpoints=checkpoints,
                lock=lock,
            )

            def place(batch: Batch) -> Batch:
                shares.add(batch["label"])
                return mesh.split_batch(batch, mesh=devices)

            batches = builders.training_batches(
                config,
                train_split,
                tiles,
                unlabeled,
                first_step=first_step - evaluate_first,
            )
            if evaluate_first:  # the run was killed during this evaluation
                run.last_batch = place(next(batches))
                run.evaluate(state)
            state, interrupted = loop.train(
                state,
                batches,
                step=run.train_step,
                place=place,
                first_step=first_step,
                last_step=plan.steps,
                callbacks=run.callbacks(),
            )
            checkpoints.wait()
            lock.check()
            if int(state.step) < plan.steps:
                writer.message(
                    f"Stopped after step {int(state.step)} of {plan.steps}; the state "
                    "is saved, and the same command resumes from it"
                )
    return interrupted


def _load_teacher(config: ConfigDict, split: Split) -> Predictor | None:
    """Return the best checkpoint of the teacher's run, in the precision of that run.

    Raises:
        FileNotFoundError: If the workdir has no checkpoint.
        ValueError: If its classes are not those of the split.
    """
    if not config.distill.teacher:
        return None
    teacher = predictor.load(config.distill.teacher)
    if teacher.class_names != tuple(split.class_names):
        raise ValueError(
            f"distill.teacher: {config.distill.teacher} was trained for the classes "
            f"{', '.join(teacher.class_names)}, and {split.dataset} has "
            f"{', '.join(split.class_names)}; give a run with the same classes"
        )
    return teacher


@contextlib.contextmanager
def _locked(folder: str | Path) -> Iterator[WorkdirLock | NoLock]:
    """Hold the workdir's lock in the first process, and delete what a kill left."""
    if jax.process_index():
        yield NoLock()
        return
    with training_lock(folder) as lock:
        checkpoint_folder.clean(Path(folder).absolute() / "checkpoints")
        for name in ("config.json", "metrics.jsonl"):  # written by training only
            atomic.delete_leftovers(Path(folder) / name)
        yield lock


@contextlib.contextmanager
def _closing(checkpoints: Checkpoints) -> Iterator[None]:
    """Close at the end; after an error, a save that fails too does not replace it."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            checkpoints.close()
        raise
    checkpoints.close()


@dataclasses.dataclass
class _Run:
    """The callbacks of one run."""

    config: ConfigDict
    plan: Plan
    _: dataclasses.KW_ONLY
    step: Callable[[TrainState, Batch, Hyperparameters], tuple[TrainState, Metrics]]
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
            evaluate_every=self.plan.evaluate_every,
            save=self.save,
            save_every=self.config.save_every_steps,
            diverged=functools.partial(_diverged, self.checkpoints),
        )

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Take one step, and remember its batch for the next evaluation."""
        self.last_batch = batch
        return self.step(state, batch, self.hyper)

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
        step, last = int(state.step), int(state.step) == self.plan.steps
        self.writer.write(step, named | result.named(prefix="val/"))
        self.writer.show(
            step,
            self.shares.scalars() | tensorboard.scalars(result, self.val_split),
            tensorboard.pictures(result, self.val_split, with_confusion=last),
        )
        self.writer.sync()
        self.checkpoints.score(step, {"miou": result.scores["miou"]})
        if not jax.process_index():
            save_pictures(result, self.val_split, self.folder)
        self.evaluations.append(time.perf_counter() - start)

    def _left(self, number: int, steps_per_s: float) -> str | None:
        """Return the time left in words, with that of evaluations if one was timed."""
        steps_left = self.plan.steps - number
        if not steps_left:
            return None
        seconds, evaluations = steps_left / steps_per_s, ""
        if count := self.plan.evaluations_after(number):
            if self.evaluations:
                seconds += count * sum(self.evaluations) / len(self.evaluations)
            else:
                evaluations = f" + {count} evaluation{'s' if count > 1 else ''}"
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d}{evaluations}"


def _writer(
    config: ConfigDict, folder: str | Path, first_step: int, *, last_step: int
) -> Writer | Silent:
    """Return the writer of the first process, and a silent one for all others."""
    if jax.process_index():
        return Silent()
    return Writer(
        folder,
        first_step=first_step,
        last_step=last_step,
        wandb_config=config.to_dict() if config.writer.wandb else None,
    )


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
        settings=sliding_window.WHOLE_IMAGE,
        temperatures={"one": 1.0, "t_g": builders.training_temperature(config)},
        num_examples=PANELS,
        visit=lambda example: None,
        progress=f"evaluating {split.name}",
    )


def _diverged(checkpoints: Checkpoints, number: int, reason: str) -> Diverged:
    """Return the error for a step that is not finite; it names the last checkpoint."""
    checkpoints.wait()
    good = checkpoints.steps()
    return Diverged(
        f"step {number}: {reason}; the last good checkpoint is "
        f"{'step ' + str(good[-1]) if good else 'none'}; lower "
        "optimizer.learning_rate_g, or use precision=float32, and resume with "
        "--allow_config_change"
    )


def jitted_step(config: ConfigDict, objective: Objective) -> Callable:
    """Return the jitted step, with gradient accumulation if the config sets it."""
    if config.accumulate == 1:
        return functools.partial(TRAIN_STEP, objective=objective)
    return functools.partial(
        ACCUMULATED_STEP, micro_batches=config.accumulate, objective=objective
    )
