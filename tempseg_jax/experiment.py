"""What a user asks for: train, describe."""

import functools

import jax
import numpy as np
from ml_collections import ConfigDict

from tempseg_jax import loop, mesh, parts, scoring, sliding, steps, workdir
from tempseg_jax.checkpoint import Checkpoints
from tempseg_jax.steps import TrainState
from tempseg_jax.writer import Writer

TRAIN_STEP = jax.jit(
    steps.train_step,
    static_argnames=("segmenter", "discriminator", "gan", "mask_void"),
    donate_argnames=("state",),
)
"""The one `jit` of training: experiments of the same networks share its cache."""


class Diverged(ValueError):
    """A loss that is not finite."""


def train(config: ConfigDict, folder: str, *, allow_change: bool) -> dict[str, float]:
    """Train, from the workdir's latest checkpoint if it has one; return last scores.

    Raises:
        ValueError, OSError: the config, the data, or what the workdir holds is bad.
        Diverged: a loss is not finite.
    """
    train_split = parts.load_split(config, config.data.train_split)
    val_split = parts.load_split(config, config.data.val_split)
    plan = parts.Plan.of(config, images=len(train_split.examples))
    networks = parts.build_networks(config, num_classes=len(train_split.class_names))
    devices = mesh.data_mesh(batch_size=config.data.batch_size)
    hyper = mesh.replicate(parts.hyperparameters(config, plan), devices)
    model = parts.describe_model(config, networks, train_split)
    checkpoints = Checkpoints(folder)
    begun = bool(checkpoints.steps())
    workdir.claim(folder, config, allow_change=allow_change or not begun)
    state = mesh.replicate(parts.initial_state(config, networks), devices)
    if begun:
        state = checkpoints.restore(state, model, step=checkpoints.resolve("latest"))
    first_step = int(state.step)

    step = functools.partial(
        TRAIN_STEP,
        segmenter=networks.segmenter,
        discriminator=networks.discriminator,
        gan=config.objective.gan,
        mask_void=config.objective.mask_void,
    )
    scores = {}
    with Writer(folder, first_step=first_step, last_step=plan.steps) as writer:
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
            result = scoring.score(
                state.segmenter.variables,
                val_split,
                segmenter=networks.segmenter,
                batch_size=config.eval_batch_size,
                num_workers=config.data.num_workers,
                views=sliding.WHOLE,
                temperatures={"one": 1.0, "t_g": parts.training_temperature(config)},
                num_examples=scoring.PANELS,
                visit=lambda example: None,
            )
            writer.message(scoring.table(result, val_split))
            writer.write(int(state.step), result.named(prefix="val/"))
            scoring.save_pictures(result, val_split, folder)
            checkpoints.save(state, model, metrics=result.scores)
            scores.update(result.scores)

        def diverged(number: int, values: dict[str, float]) -> Diverged:
            checkpoints.wait()
            good = checkpoints.steps()
            return Diverged(
                f"step {number}: the loss is not finite ({values}); the last good "
                f"checkpoint is {'step ' + str(good[-1]) if good else 'none'}; lower "
                "optimizer.learning_rate_g, or use precision=float32"
            )

        try:
            loop.train(
                state,
                parts.training_batches(config, train_split, first_step=first_step),
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
                    diverged=diverged,
                ),
            )
        finally:
            checkpoints.close()
    return scores


def describe(config: ConfigDict) -> str:
    """Return the networks' sizes and the effective config; needs no data."""
    num_classes = len(parts.class_names(config))
    networks = parts.build_networks(config, num_classes=num_classes)
    state = parts.abstract_state(config, networks)
    size = config.data.crop_size
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    forward = jax.jit(functools.partial(steps.predict, segmenter=networks.segmenter))
    cost = forward.lower(state.segmenter.variables, image).cost_analysis()
    lines = [f"segmenter: {config.model.name}, {num_classes} classes"]
    for name in ("segmenter", "discriminator"):
        player = getattr(state, name)
        count = sum(x.size for x in jax.tree.leaves(player.params)) if player else 0
        lines.append(f"{name} parameters: {count}")
    lines.append(
        f"segmenter forward pass: {cost['flops'] / 1e9:.2f} GFLOP for one image of "
        f"{size}x{size}"
    )
    return "\n".join([*lines, "", str(config)])
