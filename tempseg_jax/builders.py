"""Build the objective, state, hyperparameters and data of an experiment.

Every function here takes the whole config. Lower modules, except `plan`, take plain
arguments.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Num, PRNGKeyArray, PyTree
from ml_collections import ConfigDict

from tempseg_jax import (
    discriminator_step,
    mesh,
    optim,
    precision,
    semi_supervised,
    steps,
    train_state,
)
from tempseg_jax.data import catalog, class_pixels, pipeline, tile_preparation
from tempseg_jax.data.subset import Chosen, nested_subset
from tempseg_jax.data.tiles import Tiles
from tempseg_jax.data.unlabeled import Unlabeled
from tempseg_jax.models import DISCRIMINATORS, with_field
from tempseg_jax.models.build import build_segmenter
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.models.weights.pretrained import load_pretrained, preprocessing_of
from tempseg_jax.objective.adversaries import ADVERSARIES
from tempseg_jax.plan import Plan
from tempseg_jax.steps import Objective
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch
from tempseg_jax.workdir.checkpoint import Checkpoints

SCHEDULE_BLOCK = 2**14
"""The length of the schedule is a multiple of this number of steps."""


def build_objective(
    config: ConfigDict, *, num_classes: int, preprocessing: Preprocessing | None = None
) -> Objective:
    """Return the networks and the terms of their losses.

    Args:
        config: The config of the run, checked by `config_fields`.
        num_classes: Number of classes of the dataset.
        preprocessing: The preprocessing that a checkpoint was trained with. None means
            the preprocessing that the config's pretrained weights expect.

    Raises:
        ValueError: If `model.pretrained` is neither a known source nor a weight file,
            or if the network does not have what a field asks for.
    """
    dtype = precision.COMPUTE_DTYPES[config.precision]
    segmenter = build_segmenter(
        config.model.name,
        head=config.model.head,
        output_stride=config.model.output_stride,
        auxiliary=config.objective.auxiliary > 0,
        num_classes=num_classes,
        preprocessing=preprocessing or preprocessing_of(config.model.pretrained),
        width=config.model.width,
        dtype=dtype,
        remat=config.model.remat,
    )
    segmenter = _with_training_options(
        segmenter,
        config,
        freeze_batch_norm="none",
        dropout=None,
        drop_connect=0.0,
    )
    _check_accumulation(config)
    _check_teacher(config)
    semi_supervised.check(config)
    discriminator = None
    if config.objective.alpha:
        _check_penalty(config)
        discriminator = DISCRIMINATORS[config.model.discriminator](dtype)
    return Objective(
        segmenter=segmenter,
        discriminator=discriminator,
        adversary=ADVERSARIES[config.objective.adversary],
        critic_steps=config.objective.critic_steps,
        mask_void=config.objective.mask_void,
        real=config.objective.real,
        smooth_labels=config.objective.label_smoothing > 0,
        conditional=config.objective.conditional,
        discriminator_optimizer=config.optimizer.discriminator,
        class_weights=config.objective.class_weights != "none",
        hard_pixels=float(config.objective.hard_pixels),
        l1=config.optimizer.l1 > 0,
        auxiliary=config.objective.auxiliary > 0,
        scheduled_temperature=config.objective.temperature_schedule != "constant",
        unlabeled_adversarial=config.semi.alpha > 0,
        self_training=config.semi.weight > 0,
    )


def _check_penalty(config: ConfigDict) -> None:
    adversary, network = config.objective.adversary, config.model.discriminator
    if ADVERSARIES[adversary].penalty is not None and network == "dcgan":
        raise ValueError(
            f"model.discriminator: {network!r} has BatchNorm, through which the score "
            "of an image depends on the other images; the penalty of "
            f"objective.adversary={adversary!r} needs a discriminator without it, such "
            "as dcgan_ln or fcn"
        )


def _with_training_options(
    segmenter: nn.Module, config: ConfigDict, **defaults: str | float | None
) -> nn.Module:
    """Set fields that not all networks have, in the network and in its backbone.

    Raises:
        ValueError: If the config sets a field that the network does not have.
    """
    for field, default in defaults.items():
        value = config.model[field]
        if value == default:
            continue
        changed = with_field(segmenter, field, value)
        if changed is None:
            raise ValueError(
                f"model.{field}: {value!r} is not supported by model.name="
                f"{config.model.name!r}, which has no such field; set it to {default!r}"
            )
        segmenter = changed
    return segmenter


def _check_teacher(config: ConfigDict) -> None:
    if config.distill.teacher:
        return
    if config.objective.real == "teacher" or config.distill.pairwise:
        field = "distill.pairwise" if config.distill.pairwise else "objective.real"
        raise ValueError(
            f"distill.teacher: empty, but {field} needs a teacher; give the workdir of "
            "a trained run"
        )


def with_teacher(
    config: ConfigDict,
    objective: Objective,
    hyper: steps.Hyperparameters,
    *,
    teacher: nn.Module,
    variables: PyTree,
) -> tuple[Objective, steps.Hyperparameters]:
    """Return both with a trained segmenter to distill."""
    pairwise = config.distill.pairwise > 0
    objective = dataclasses.replace(objective, teacher=teacher, pairwise=pairwise)
    return objective, hyper._replace(teacher=variables)


def _check_accumulation(config: ConfigDict) -> None:
    objective = config.objective
    for field, off in (("class_weights", "none"), ("hard_pixels", 1.0)):
        if config.accumulate > 1 and objective[field] != off:
            raise ValueError(
                f"objective.{field}: {objective[field]!r} needs the whole batch at "
                f"once; set it to {off!r}, or accumulate to 1"
            )


def initial_state(config: ConfigDict, objective: Objective) -> TrainState:
    """Return the state before training: seeded, with the pretrained weights loaded."""
    key_g, key_d = jax.random.split(jax.random.key(config.seed))
    image = jnp.zeros((1, 64, 64, 3), jnp.uint8)
    variables = _init(key_g, image, network=objective.segmenter)
    if config.model.pretrained:
        variables, report = load_pretrained(
            variables,
            config.model.pretrained,
            segmenter_name=config.model.name,
            missing=tuple(config.model.pretrained_missing),
        )
        if jax.process_index() == 0:
            print(report, flush=True)
    _check_head_rate(config, variables["params"])
    scale = precision.loss_scale(config.precision)
    # The optimizers' initial states do not depend on these values.
    sgd = optim.sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0)
    segmenter = train_state.init_player(variables, sgd, loss_scale=scale)
    discriminator = None
    if objective.discriminator is not None:
        p = jnp.zeros((1, 64, 64, objective.segmenter.num_classes))
        discriminator = train_state.init_player(
            _init(
                key_d,
                discriminator_step.discriminator_input(p, image, objective),
                network=objective.discriminator,
            ),
            optim.DISCRIMINATOR_OPTIMIZERS[objective.discriminator_optimizer](
                learning_rate=0.0
            ),
            loss_scale=scale,
        )
    return TrainState(jnp.int32(0), segmenter, discriminator)


def _check_head_rate(config: ConfigDict, params: PyTree) -> None:
    if config.optimizer.head_rate != 1 and not any(
        jax.tree.leaves(optim.head_mask(params))
    ):
        raise ValueError(
            f"optimizer.head_rate: {config.optimizer.head_rate} has no effect on "
            f"model.name={config.model.name!r}, which has no layer whose name starts "
            "with 'score'; name its last layers so, or set it to 1"
        )


def hyperparameters(
    config: ConfigDict,
    plan: Plan,
    *,
    class_weights: Float[np.ndarray, "k"] | None = None,
) -> steps.Hyperparameters:
    """Return the numbers that the training step traces.

    Args:
        config: The config of the run.
        plan: Its length in steps.
        class_weights: The result of `load_class_weights`.

    Raises:
        ValueError: If the warm-up leaves too few steps for the cosine cycles.
    """
    objective, optimizer = config.objective, config.optimizer
    factor = optim.warmup_cosine(
        steps=plan.steps, warmup_steps=plan.warmup_steps, cycles=optimizer.cycles
    )
    # Padded, so that runs of different lengths share the compiled step.
    schedule = np.zeros(-(-plan.steps // SCHEDULE_BLOCK) * SCHEDULE_BLOCK, np.float32)
    schedule[: plan.steps] = jax.vmap(factor)(jnp.arange(plan.steps))
    return steps.Hyperparameters(
        seed=config.seed,
        schedule=schedule,
        learning_rate_g=optimizer.learning_rate_g,
        learning_rate_d=optimizer.learning_rate_d,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        head_rate=optimizer.head_rate,
        temperature_seg=objective.temperature_g
        if objective.temperature_seg is None
        else objective.temperature_seg,
        temperature_adv=objective.temperature_g
        if objective.temperature_adv is None
        else objective.temperature_adv,
        temperature_d=objective.temperature_d,
        alpha=objective.alpha,
        label_smoothing=objective.label_smoothing,
        class_weights=1.0 if class_weights is None else class_weights,
        l1=optimizer.l1,
        auxiliary_weight=objective.auxiliary,
        distill_weight=config.distill.weight,
        distill_temperature=config.distill.temperature,
        pairwise_weight=config.distill.pairwise,
        temperature_schedule=_temperature_schedule(config, plan),
        unlabeled_alpha=config.semi.alpha,
        semi_weight=config.semi.weight,
        semi_threshold=config.semi.threshold,
        semi_start=semi_supervised.start_step(config, steps=plan.steps),
    )


def _temperature_schedule(
    config: ConfigDict, plan: Plan
) -> float | Float[np.ndarray, "n"]:
    objective = config.objective
    if objective.temperature_schedule == "constant":
        return 1.0
    values = optim.temperature_schedule(
        objective.temperature_schedule,
        start=objective.temperature_g,
        end=objective.temperature_end,
        steps=plan.steps,
    )
    return np.pad(values, (0, -plan.steps % SCHEDULE_BLOCK), mode="edge")


def load_class_weights(
    config: ConfigDict, split: catalog.Split
) -> Float[np.ndarray, "k"] | None:
    """Return the class weights of L_seg; None if there are none.

    They are computed from the pixels of the training images (`data.train_fraction` of
    them), which are counted once and stored with the prepared dataset.

    Args:
        config: The config of the run.
        split: The result of `load_training_split`.

    Raises:
        ValueError: If the config gives weights, but not one for each class.
    """
    name, given = config.objective.class_weights, config.objective.given_class_weights
    if name == "given":
        weights = np.array(given, np.float32)
        if weights.shape != (len(split.class_names),) or not np.all(weights >= 0):
            raise ValueError(
                f"objective.given_class_weights: {tuple(given)} are not "
                f"{len(split.class_names)} numbers of at least 0; give one for each of "
                f"{', '.join(split.class_names)}"
            )
        return weights
    if name == "none":
        return None
    counts = class_pixels.count(load_split(config, config.data.train_split))
    return class_pixels.CLASS_WEIGHTS[name](class_pixels.of_subset(counts, split))


def training_temperature(config: ConfigDict) -> float:
    """Return T_G in L_seg at the end, at which the calibration is measured."""
    objective = config.objective
    end = objective.temperature_end / objective.temperature_g
    factor = 1.0 if objective.temperature_schedule == "constant" else end
    if objective.temperature_seg is not None:
        return factor * objective.temperature_seg
    return factor * objective.temperature_g


def abstract_state(config: ConfigDict, objective: Objective) -> TrainState:
    """Return the shapes of `initial_state`, without computing or reading anything."""
    scratch = config.copy_and_resolve_references()
    with scratch.unlocked():
        scratch.model.pretrained = ""
    return jax.eval_shape(lambda: initial_state(scratch, objective))


def restore_state(
    config: ConfigDict,
    checkpoints: Checkpoints,
    split: catalog.Split,
    *,
    step: int,
    devices: Mesh,
) -> tuple[Objective, TrainState, dict[str, Any]]:
    """Restore both players from a checkpoint.

    Returns:
        The objective, the state on every device of the mesh, and the description of
        the model (`describe_model`).

    Raises:
        ValueError: If the networks of the checkpoint are not those of the config.
    """
    objective, model = _as_trained(config, checkpoints, split, step=step)
    shapes = mesh.replicated_shapes(abstract_state(config, objective), devices)
    return objective, checkpoints.restore(shapes, model, step=step), model


def restore_segmenter(
    config: ConfigDict,
    checkpoints: Checkpoints,
    split: catalog.Split,
    *,
    step: int,
    devices: Mesh,
) -> tuple[nn.Module, PyTree]:
    """Restore only the segmenter: its module, and its variables on every device.

    Raises:
        ValueError: If the segmenter of the checkpoint is not that of the config.
    """
    objective, model = _as_trained(config, checkpoints, split, step=step)
    variables = abstract_state(config, objective).segmenter.variables
    shapes = mesh.replicated_shapes(variables, devices)
    restored = checkpoints.restore_segmenter(shapes, model, step=step)
    return objective.segmenter, restored


def _as_trained(
    config: ConfigDict, checkpoints: Checkpoints, split: catalog.Split, *, step: int
) -> tuple[Objective, dict[str, Any]]:
    """Return objective and model description with the checkpoint's preprocessing."""
    objective = build_objective(
        config,
        num_classes=len(split.class_names),
        preprocessing=checkpoints.trained_with(step),
    )
    return objective, describe_model(config, objective, split)


def describe_model(
    config: ConfigDict, objective: Objective, split: catalog.Split
) -> dict[str, Any]:
    """Return the description of the model that is saved in its checkpoints.

    The segmenter can be restored from it without the config.
    """
    segmenter = objective.segmenter
    return {
        "name": config.model.name,
        "width": config.model.width,
        "head": config.model.head,
        "output_stride": config.model.output_stride,
        "auxiliary": objective.auxiliary,
        "drop_connect": config.model.drop_connect,
        "num_classes": segmenter.num_classes,
        "discriminator": None
        if objective.discriminator is None
        else _described_discriminator(config),
        "preprocessing": segmenter.preprocessing._asdict(),
        "class_names": split.class_names,
        "palette": split.palette.tolist(),
        "dataset": split.dataset,
        "precision": config.precision,
        "temperature_g": training_temperature(config),
    }


def _described_discriminator(config: ConfigDict) -> str:
    """Name what the variables and the optimizer state of D depend on."""
    parts = [config.model.discriminator]
    if config.objective.conditional:
        parts.append("conditional")
    if config.optimizer.discriminator != "adam":  # of versions without the field
        parts.append(config.optimizer.discriminator)
    return ", ".join(parts)


def class_names(config: ConfigDict) -> tuple[str, ...]:
    """Return the class names of the configured dataset without reading its files.

    Raises:
        ValueError: If the dataset is a folder and the config does not name its classes.
    """
    data = config.data
    if data.name == "folder" and not data.options.get("class_names"):
        raise ValueError(
            "data.options.class_names: empty; list the names of the classes, so that "
            "a dataset of your own can be described without reading its files"
        )
    return catalog.CLASS_NAMES[data.name] or tuple(data.options.class_names)


def load_split(config: ConfigDict, split: str) -> catalog.Split:
    """Return one split of the configured dataset, preparing it on first use."""
    data = config.data
    return catalog.load_split(
        data.name,
        split=split,
        manual_dir=data.manual_dir,
        data_dir=data.data_dir,
        on_error=data.on_error,
        **data.options.to_dict(),
    )


def load_training_split(config: ConfigDict) -> catalog.Split:
    """Return the labeled images to train on."""
    return semi_supervised.divide(config, load_training_images(config))[0]


def load_training_images(config: ConfigDict) -> catalog.Split:
    """Return the images to train on: `data.train_fraction` of the training split.

    Of some of them, only the image is used, if `data.labeled_fraction` is below 1.
    """
    return nested_subset(
        load_split(config, config.data.train_split),
        fraction=config.data.train_fraction,
        seed=config.data.subset_seed,
    )


def load_tiles(config: ConfigDict, split: catalog.Split) -> Tiles | None:
    """Return the images to train on as tiles, preparing the split on first use.

    Args:
        config: The config of the run.
        split: The result of `load_training_split`, or images without labels.

    Returns:
        The tiles, or None if the config uses none.
    """
    if not config.data.tiles:
        return None
    if not isinstance(split.examples, Chosen):
        return tile_preparation.prepare(split, on_error=config.data.on_error)
    whole = load_split(config, config.data.train_split)
    tiles = tile_preparation.prepare(whole, on_error=config.data.on_error)
    return tiles.choose(split.examples.indices)


def load_unlabeled(config: ConfigDict, split: catalog.Split | None) -> Unlabeled | None:
    """Return what each batch has without labels; None if the objective uses none.

    Args:
        config: The config of the run.
        split: The second result of `semi_supervised.divide`.
    """
    if split is None:
        return None
    size = semi_supervised.unlabeled_batch_size(config)
    return Unlabeled(split, load_tiles(config, split), size)


def training_batches(
    config: ConfigDict,
    split: catalog.Split,
    tiles: Tiles | None = None,
    unlabeled: Unlabeled | None = None,
    *,
    first_step: int,
) -> Iterator[Batch]:
    """Yield this process's share of every batch after `first_step`, endlessly."""
    data = config.data
    return pipeline.train_batches(
        split,
        tiles=tiles,
        unlabeled=unlabeled,
        seed=config.seed,
        start_step=first_step,
        batch_size=data.batch_size,
        crop_size=data.crop_size,
        min_scale=data.min_scale,
        max_scale=data.max_scale,
        cat_max_ratio=data.cat_max_ratio,
        photometric=data.photometric,
        num_workers=data.num_workers,
        cache_bytes=data.cache_bytes,
        on_error=data.on_error,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


@functools.partial(jax.jit, static_argnames="network")
def _init(key: PRNGKeyArray, x: Num[Array, "..."], *, network: nn.Module) -> PyTree:
    """Initialize a network's variables; compiled once for all runs of a process."""
    return network.init(key, x, train=False)
