"""Config to parts: networks, first state, lengths, hyperparameters, data."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, PRNGKeyArray, PyTree
from ml_collections import ConfigDict

from tempseg_jax import losses, optim, precision, steps, train_state
from tempseg_jax.data import catalog, pipeline
from tempseg_jax.models import SEGMENTERS, Discriminator
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.models.weights.pretrained import load_pretrained, preprocessing_of
from tempseg_jax.plan import Plan
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch


class Networks(NamedTuple):
    """Both players, as Linen modules."""

    segmenter: nn.Module
    discriminator: nn.Module | None  # none with α = 0


def build_networks(
    config: ConfigDict, *, num_classes: int, preprocessing: Preprocessing | None = None
) -> Networks:
    """Choose the networks.

    Args:
        config: of the run.
        num_classes: of the dataset.
        preprocessing: what a checkpoint was trained with; without one, what the
            config's pretrained weights want.

    Raises:
        ValueError: `model.name`, `precision` or `model.pretrained` names nothing.
    """
    make = _lookup(SEGMENTERS, "model.name", config.model.name)
    dtype = _lookup(precision.COMPUTE_DTYPES, "precision", config.precision)
    segmenter = make(
        num_classes=num_classes,
        preprocessing=preprocessing or preprocessing_of(config.model.pretrained),
        width=config.model.width,
        dtype=dtype,
        remat=config.model.remat,
    )
    _lookup(losses.ADVERSARIES, "objective.gan", config.objective.gan)
    return Networks(segmenter, Discriminator(dtype) if config.objective.alpha else None)


def initial_state(config: ConfigDict, networks: Networks) -> TrainState:
    """Draw the parameters from `seed`, then load the pretrained ones over them."""
    key_g, key_d = jax.random.split(jax.random.key(config.seed))
    image = jnp.zeros((1, 64, 64, 3), jnp.uint8)
    variables = _init(key_g, image, network=networks.segmenter)
    if config.model.pretrained:
        variables, report = load_pretrained(
            variables,
            config.model.pretrained,
            segmenter_name=config.model.name,
            missing=tuple(config.model.pretrained_missing),
        )
        if jax.process_index() == 0:
            print(report, flush=True)
    scale = precision.loss_scale(config.precision)
    # Their state is the same for all values, which the step traces.
    sgd = optim.sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0)
    segmenter = train_state.init_player(variables, sgd, loss_scale=scale)
    discriminator = None
    if networks.discriminator is not None:
        p = jnp.zeros((1, 64, 64, networks.segmenter.num_classes))
        adam = optim.adam(learning_rate=0.0)
        discriminator = train_state.init_player(
            _init(key_d, p, network=networks.discriminator), adam, loss_scale=scale
        )
    return TrainState(jnp.int32(0), segmenter, discriminator)


def hyperparameters(config: ConfigDict, plan: Plan) -> steps.Hyperparameters:
    """Collect the numbers that the step traces."""
    objective, optimizer = config.objective, config.optimizer
    factor = optim.warmup_cosine(
        steps=plan.steps, warmup_steps=plan.warmup_steps, cycles=optimizer.cycles
    )

    numbers = steps.Hyperparameters(
        seed=config.seed,
        schedule=np.asarray(jax.vmap(factor)(jnp.arange(plan.steps))),
        learning_rate_g=optimizer.learning_rate_g,
        learning_rate_d=optimizer.learning_rate_d,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        temperature_seg=training_temperature(config),
        temperature_adv=objective.temperature_g
        if objective.temperature_adv is None
        else objective.temperature_adv,
        temperature_d=objective.temperature_d,
        alpha=objective.alpha,
    )
    for name in ("temperature_seg", "temperature_adv", "temperature_d"):
        if not getattr(numbers, name) > 0:
            field = "temperature_g" if objective[name] is None else name
            raise ValueError(
                f"objective.{field}: {getattr(numbers, name)} is not a temperature; "
                "it divides the logits, so give a positive number"
            )
    return numbers


def training_temperature(config: ConfigDict) -> float:
    """Return T_G as it acts on L_seg, which is what makes probabilities true."""
    objective = config.objective
    if objective.temperature_seg is not None:
        return objective.temperature_seg
    return objective.temperature_g


def abstract_state(config: ConfigDict, networks: Networks) -> TrainState:
    """Return the shapes of `initial_state`, drawing and reading nothing."""
    scratch = config.copy_and_resolve_references()
    with scratch.unlocked():
        scratch.model.pretrained = ""
    return jax.eval_shape(lambda: initial_state(scratch, networks))


def describe_model(
    config: ConfigDict, networks: Networks, split: catalog.Split
) -> dict[str, Any]:
    """Return what a checkpoint must say of its segmenter for anyone to use it."""
    return {
        "name": config.model.name,
        "width": config.model.width,
        "num_classes": networks.segmenter.num_classes,
        "discriminator": networks.discriminator is not None,
        "preprocessing": networks.segmenter.preprocessing._asdict(),
        "class_names": split.class_names,
        "palette": split.palette.tolist(),
        "dataset": split.dataset,
        "precision": config.precision,
        "temperature_g": training_temperature(config),
    }


def class_names(config: ConfigDict) -> tuple[str, ...]:
    """Return the configured dataset's classes, reading no data.

    Raises:
        ValueError: only the data would tell.
    """
    data = config.data
    if data.name == "folder" and not data.options.get("class_names"):
        raise ValueError(
            "data.options.class_names: a dataset of your own must name its classes "
            "here before it can be described without its files"
        )
    _lookup(catalog.CLASS_NAMES, "data.name", data.name)
    return catalog.CLASS_NAMES[data.name] or tuple(data.options.class_names)


def load_split(config: ConfigDict, split: str) -> catalog.Split:
    """Read one split of the configured dataset, prepared on first use."""
    data = config.data
    return catalog.load_split(
        data.name,
        split=split,
        manual_dir=data.manual_dir,
        data_dir=data.data_dir,
        on_error=data.on_error,
        **data.options,
    )


def training_batches(
    config: ConfigDict, split: catalog.Split, *, first_step: int
) -> Iterator[Batch]:
    """Start this process's share of the endless batches after `first_step`."""
    data = config.data
    return pipeline.train_batches(
        split,
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
    """Draw a network's variables; compiled once for all runs of a process."""
    return network.init(key, x, train=False)


def _lookup(table: dict, field: str, value: str) -> Any:
    if value not in table:
        raise ValueError(f"{field}: {value!r} is not one of {', '.join(table)}")
    return table[value]
