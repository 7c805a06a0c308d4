"""Factories and paths that several test modules share."""

import functools
import importlib.util
import os
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

ROOT = Path(__file__).parents[1]
TEST_DATA = Path(os.environ.get("TEMPSEG_TEST_DATA") or ROOT.parent / "shared/data")


def load_config(name: str) -> ConfigDict:
    """Return the config of `--config=configs/<name>.py`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def make_segmenter(
    name,
    *,
    num_classes=5,
    width=0.05,
    dtype=jnp.float32,
    remat=False,
    head="score",
    output_stride=None,
    auxiliary=False,
):
    """Return a network of SEGMENTERS, by default narrow and with the paper's head."""
    from tempseg_jax.models.build import build_segmenter
    from tempseg_jax.models.preprocessing import TORCHVISION

    return build_segmenter(
        name,
        head=head,
        output_stride=output_stride,
        auxiliary=auxiliary,
        num_classes=num_classes,
        preprocessing=TORCHVISION,
        width=width,
        dtype=dtype,
        remat=remat,
    )


def make_hyper(**changes):
    """Return the numbers of a step: constant rates and T = 1, unless changed."""
    from tempseg_jax.hyperparameters import Hyperparameters

    return Hyperparameters(
        **{
            "seed": 0,
            "learning_rate_schedule": jnp.ones(16),
            "learning_rate_g": 0.1,
            "learning_rate_d": 0.01,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "head_rate": 1.0,
            "temperature_seg": 1.0,
            "temperature_adv": 1.0,
            "temperature_d": 1.0,
            "alpha": 0.3,
            "label_smoothing": 0.0,
        }
        | changes
    )


def make_state(segmenter, discriminator, *, size, num_classes, loss_scale=None):
    """Return an initial TrainState; without a discriminator, for supervised training.

    Args:
        segmenter: The Linen module.
        discriminator: The Linen module, or None.
        size: Height and width of the images that initialize the networks, in pixels.
        num_classes: Number of channels of the discriminator's input.
        loss_scale: Initial loss scale for float16; None for no loss scale.
    """
    from flax.training.dynamic_scale import DynamicScale

    from tempseg_jax import optim, train_state

    key_g, key_d = jax.random.split(jax.random.key(0))
    sgd = optim.sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0)
    adam = optim.adam(learning_rate=0.0)

    def player(network, key, x, optimizer):
        scale = loss_scale and DynamicScale(
            fin_steps=jnp.int32(0), scale=jnp.float32(loss_scale)
        )
        variables = network.init(key, x, train=False)
        return train_state.init_player(variables, optimizer, loss_scale=scale)

    image = jnp.zeros((1, size, size, 3), jnp.uint8)
    p = jnp.zeros((1, size, size, num_classes))
    return train_state.TrainState(
        jnp.int32(0),
        player(segmenter, key_g, image, sgd),
        None if discriminator is None else player(discriminator, key_d, p, adam),
    )


NARROW = (8, 8, 8, 8)
"""Channels of discriminators that compile sooner."""


def narrow_discriminators(monkeypatch) -> None:
    """Give the discriminators of configs few channels."""
    from tempseg_jax.models import DISCRIMINATORS

    for name, make in tuple(DISCRIMINATORS.items()):
        narrow = functools.partial(make, channels=NARROW)
        monkeypatch.setitem(DISCRIMINATORS, name, narrow)


def make_objective(segmenter, discriminator, **changes):
    """Return the paper's objective with these networks, and with `changes`."""
    from tempseg_jax.objective import adversaries, losses

    fields = {
        "adversary": adversaries.ADVERSARIES["lsgan"],
        "critic_steps": 1,
        "mask_void": True,
    }
    return losses.Objective(segmenter, discriminator, **fields | changes)


def save_teacher(config: ConfigDict, folder) -> None:
    """Save a checkpoint of the config's segmenter, random in every layer."""
    from tempseg_jax import builders
    from tempseg_jax.workdir.checkpoint import Checkpoints

    config = config.copy_and_resolve_references()
    config.objective.alpha = 0.0
    config.distill.teacher, config.distill.pairwise = "", 0.0
    split = builders.load_split(config, config.data.val_split)
    objective = builders.build_objective(config, num_classes=len(split.class_names))
    state = builders.initial_state(config, objective, class_names=split.class_names)
    params = jax.tree.map(lambda x: x + 0.01, state.segmenter.params)
    state = state.replace(segmenter=state.segmenter.replace(params=params))
    checkpoints = Checkpoints(folder)
    model = builders.describe_model(config, objective, split)
    checkpoints.save(state, model)
    checkpoints.close()


def make_demo_config(data_dir: str) -> ConfigDict:
    """Return the demo config, reduced so that a step takes a fraction of a second."""
    config = load_config("demo")
    config.data.data_dir = data_dir
    config.data.batch_size = 4
    config.data.crop_size = 32
    config.data.num_workers = 0
    config.model.width = 0.05
    config.steps = 4
    return config


def stderr_lines(done) -> list[str]:
    """Return what a command printed on stderr, without Grain's warning at its import.

    Grain prints that it cannot profile its workers with jaxlib before 0.11.
    """
    lines = done.stderr.splitlines()
    return [x for x in lines if not x.startswith("WARNING:absl:Grain multiprocess")]


def replace_once(path: Path, old: str, new: str) -> None:
    """Replace a text that a file has exactly once."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
