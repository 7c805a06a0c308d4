"""What a user asks for: train, describe."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tempseg_jax import builders, gradient_accumulation, loop, mesh, steps
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation.result import PANELS, save_pictures, score, table
from tempseg_jax.inference import sliding_window
from tempseg_jax.models.flops import count_flops
from tempseg_jax.plan import Plan, images_at_once
from tempseg_jax.train_state import TrainState
from tempseg_jax.workdir import saved_config
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.metrics_writer import Silent, Writer

TRAIN_STEP = jax.jit(
    steps.train_step,
    static_argnames=("segmenter", "discriminator", "gan", "mask_void"),
    donate_argnames=("state",),
)
"""The one `jit` of training: experiments of the same networks share its cache."""

ACCUMULATED_STEP = jax.jit(
    gradient_accumulation.accumulated_step,
    static_argnames=("rounds", "segmenter", "discriminator", "gan", "mask_void"),
    donate_argnames=("state",),
)
"""The same, for batches that are played in parts."""


class Diverged(ValueError):
    """A loss, or what it made of the parameters, is not finite."""


def train(config: ConfigDict, folder: str | Path, *, allow_change: bool) -> bool:
    """Train, from the workdir's latest checkpoint if it has one.

    Returns:
        Whether SIGTERM or Ctrl-C came: what it did is saved, to be gone on with.

    Raises:
        ValueError, OSError: the config, the data, or what the workdir holds is bad.
        Diverged: a loss, or what it made of the parameters, is not finite.
    """
    train_split = builders.load_split(config, config.data.train_split)
    val_split = builders.load_split(config, config.data.val_split)
    plan = Plan.of(config, images=len(train_split.examples))
    devices = mesh.data_mesh(batch_size=images_at_once(config))
    hyper = mesh.replicate(builders.hyperparameters(config, plan), devices)
    checkpoints = Checkpoints(folder)
    networks, state, model = _start(
        config,
        folder,
        checkpoints,
        split=train_split,
        devices=devices,
        allow_change=allow_change,
    )
    first_step = int(state.step)
    step = _step_of(config, networks)
    with _writer(folder, first_step=first_step, last_step=plan.steps) as writer:
        writer.message(
            f"{'Resuming at' if first_step else 'Starting at'} step {first_step} of "
            f"{plan.steps}: {len(train_split.examples)} images, "
            f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
        )

        def log(number: int, means: dict[str, float]) -> None:
            named = {f"train/{name}": value for name, value in means.items()}
            writer.write(number, named)
            writer.progress(number, named)

        def evaluate_and_save(state: TrainState) -> None:
            scores = _evaluate(config, networks, state, val_split, folder, writer)
            checkpoints.save(state, model, metrics=scores)

        try:
            state, interrupted = loop.train(
                state,
                builders.training_batches(config, train_split, first_step=first_step),
                step=lambda state, batch: step(state, batch, hyper),
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
                f"Stopped and saved after step {int(state.step)} of {plan.steps}; "
                "the same command goes on from there"
            )
    return interrupted


def _start(
    config: ConfigDict,
    folder: str | Path,
    checkpoints: Checkpoints,
    *,
    split: Split,
    devices: Mesh,
    allow_change: bool,
) -> tuple[builders.Networks, TrainState, dict[str, Any]]:
    """Return networks, first state and description, anew or from the last checkpoint.

    From here on the workdir belongs to this config.
    """
    last = checkpoints.resolve("latest") if checkpoints.steps() else None
    networks = builders.build_networks(
        config,
        num_classes=len(split.class_names),
        preprocessing=None if last is None else checkpoints.trained_with(last),
    )
    model = builders.describe_model(config, networks, split)
    if last is None:
        state = mesh.replicate(builders.initial_state(config, networks), devices)
    else:
        if not allow_change:
            saved_config.check(folder, config)
        shapes = builders.abstract_state(config, networks)
        like = mesh.replicated_shapes(shapes, devices)
        state = checkpoints.restore(like, model, step=last)
    # Only now: what could not be restored still belongs to the config that saved it.
    saved_config.claim(folder, config, allow_change=True)
    return networks, state, model


def _writer(folder: str | Path, *, first_step: int, last_step: int) -> Writer | Silent:
    if jax.process_index():
        return Silent()
    return Writer(folder, first_step=first_step, last_step=last_step)


def _evaluate(
    config: ConfigDict,
    networks: builders.Networks,
    state: TrainState,
    split: Split,
    folder: str | Path,
    writer: Writer | Silent,
) -> dict[str, float]:
    """Score the segmenter; write the numbers, their table and the pictures."""
    result = score(
        state.segmenter.variables,
        split,
        segmenter=networks.segmenter,
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
    """Say what is not finite since step `number`, and how to go on."""
    checkpoints.wait()
    good = checkpoints.steps()
    return Diverged(
        f"step {number}: {reason}; the last good checkpoint is "
        f"{'step ' + str(good[-1]) if good else 'none'}; lower "
        "optimizer.learning_rate_g, or use precision=float32, and go on with "
        "--allow_config_change"
    )


def _step_of(config: ConfigDict, networks: builders.Networks) -> Callable:
    """Choose the step: a whole batch at once, or in `accumulate` parts."""
    fixed = {
        "segmenter": networks.segmenter,
        "discriminator": networks.discriminator,
        "gan": config.objective.gan,
        "mask_void": config.objective.mask_void,
    }
    if config.accumulate == 1:
        return functools.partial(TRAIN_STEP, **fixed)
    return functools.partial(ACCUMULATED_STEP, rounds=config.accumulate, **fixed)


def describe(config: ConfigDict) -> str:
    """Return the networks' sizes and the effective config; needs no data."""
    num_classes = len(builders.class_names(config))
    networks = builders.build_networks(config, num_classes=num_classes)
    state = builders.abstract_state(config, networks)
    size = config.data.crop_size
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    forward = functools.partial(steps.predict, segmenter=networks.segmenter)
    flops = count_flops(forward, state.segmenter.variables, image)
    lines = [f"segmenter: {config.model.name}, {num_classes} classes"]
    for name in ("segmenter", "discriminator"):
        player = getattr(state, name)
        count = sum(x.size for x in jax.tree.leaves(player.params)) if player else 0
        lines.append(f"{name} parameters: {count}")
    lines.append(
        f"segmenter forward pass: {flops / 1e9:.2f} GFLOP for one image of "
        f"{size}x{size}"
    )
    return "\n".join([*lines, "", str(config)])
