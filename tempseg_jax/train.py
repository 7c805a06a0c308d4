"""Train one experiment: `--mode=train`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tempseg_jax import (
    builders,
    config_fields,
    gradient_accumulation,
    loop,
    mesh,
    steps,
)
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation.adversarial_gradient import adversarial_gradient
from tempseg_jax.evaluation.result import PANELS, save_pictures, score, table
from tempseg_jax.inference import predictor, sliding_window
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.losses import Objective
from tempseg_jax.plan import Plan, micro_batch_size
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch, Metrics
from tempseg_jax.workdir import saved_config, train_images
from tempseg_jax.workdir.checkpoint import Checkpoints
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


def train(config: ConfigDict, folder: str | Path, *, allow_change: bool) -> bool:
    """Train a new run, or resume from the latest checkpoint in the workdir.

    Args:
        config: The config of the run.
        folder: The workdir.
        allow_change: Whether to resume although the workdir was started with another
            config.

    Returns:
        True if training was interrupted by SIGTERM or Ctrl-C; the state is saved and
        training can be resumed.

    Raises:
        ValueError, OSError: If the config, the data or the workdir cannot be used.
        Diverged: If a loss or a parameter is not finite.
    """
    config_fields.check_fields(config)
    train_split = builders.load_training_split(config)
    val_split = builders.load_split(config, config.data.val_split)
    tiles = builders.load_tiles(config, train_split)
    plan = Plan.of(config, images=len(train_split.examples))
    devices = mesh.data_mesh(batch_size=micro_batch_size(config))
    hyper = builders.hyperparameters(
        config, plan, class_weights=builders.load_class_weights(config, train_split)
    )
    teacher = _load_teacher(config, train_split)
    checkpoints = Checkpoints(folder)
    objective, state, model = _first_state(
        config,
        folder,
        checkpoints,
        split=train_split,
        devices=devices,
        allow_change=allow_change,
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
    if config.data.train_fraction < 1 and not jax.process_index():
        train_images.write(folder, (x["id"] for x in train_split.examples))
    first_step = int(state.step)
    step = jitted_step(config, objective)
    with _writer(folder, first_step=first_step, last_step=plan.steps) as writer:
        writer.message(
            f"{'Resuming' if first_step else 'Starting'} at step {first_step} of "
            f"{plan.steps}: {len(train_split.examples)} images, "
            f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
        )

        def log(number: int, means: dict[str, float]) -> None:
            named = {f"train/{name}": value for name, value in means.items()}
            writer.write(number, named)
            writer.progress(number, named)

        last_batch: Batch = {}

        def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            last_batch.update(batch)
            return step(state, batch, hyper)

        def evaluate_and_save(state: TrainState) -> None:
            if state.discriminator is not None:
                gradient = ADVERSARIAL_GRADIENT(
                    state,
                    last_batch,
                    hyper,
                    images=micro_batch_size(config),
                    objective=objective,
                )
                named = {f"train/{name}": float(x) for name, x in gradient.items()}
                writer.write(int(state.step), named)
            scores = _evaluate(config, objective, state, val_split, folder, writer)
            checkpoints.save(state, model, metrics=scores)

        try:
            state, interrupted = loop.train(
                state,
                builders.training_batches(
                    config, train_split, tiles, first_step=first_step
                ),
                step=train_step,
                place=functools.partial(mesh.split_batch, mesh=devices),
                first_step=first_step,
                last_step=plan.steps,
                callbacks=loop.Callbacks(
                    log=log,
                    log_every=config.log_every_steps,
                    evaluate=evaluate_and_save,
                    evaluate_every=plan.evaluate_every,
                    save=lambda state: checkpoints.save(state, model, metrics=None),
                    save_every=config.save_every_steps,
                    diverged=functools.partial(_diverged, checkpoints),
                ),
            )
        finally:
            checkpoints.close()
        if int(state.step) < plan.steps:
            writer.message(
                f"Stopped after step {int(state.step)} of {plan.steps}; the state is "
                "saved, and the same command resumes from it"
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


def _first_state(
    config: ConfigDict,
    folder: str | Path,
    checkpoints: Checkpoints,
    *,
    split: Split,
    devices: Mesh,
    allow_change: bool,
) -> tuple[Objective, TrainState, dict[str, Any]]:
    """Return the objective, the first state and the description of the model.

    The state is restored from the latest checkpoint, or initialized if there is none.
    The config is then saved in the workdir.
    """
    if checkpoints.steps():
        if allow_change:
            saved_config.print_upgrade(folder)
        else:
            saved_config.check(folder, config)
        last = checkpoints.resolve("latest")
        objective, state, model = builders.restore_state(
            config, checkpoints, split, step=last, devices=devices
        )
    else:
        objective = builders.build_objective(config, num_classes=len(split.class_names))
        model = builders.describe_model(config, objective, split)
        state = mesh.replicate(builders.initial_state(config, objective), devices)
    # This comes last, so that a workdir that cannot be restored keeps its config.
    saved_config.claim(folder, config, allow_change=True)
    return objective, state, model


def _writer(folder: str | Path, *, first_step: int, last_step: int) -> Writer | Silent:
    """Return the writer of the first process, and a silent one for all others."""
    if jax.process_index():
        return Silent()
    return Writer(folder, first_step=first_step, last_step=last_step)


def _evaluate(
    config: ConfigDict,
    objective: Objective,
    state: TrainState,
    split: Split,
    folder: str | Path,
    writer: Writer | Silent,
) -> dict[str, float]:
    """Score the segmenter on a split; write the scores, a table and pictures."""
    result = score(
        state.segmenter.variables,
        split,
        segmenter=objective.segmenter,
        batch_size=config.eval_batch_size,
        num_workers=config.data.num_workers,
        settings=sliding_window.WHOLE_IMAGE,
        temperatures={"one": 1.0, "t_g": builders.training_temperature(config)},
        num_examples=PANELS,
        visit=lambda example: None,
    )
    writer.message(table(result, split))
    writer.write(int(state.step), result.named(prefix="val/"))
    if not jax.process_index():
        save_pictures(result, split, folder)
    return result.scores


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
