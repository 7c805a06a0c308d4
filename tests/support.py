"""Factories and paths that several test modules share."""

import importlib.util
import os
from pathlib import Path

import jax.numpy as jnp
from ml_collections import ConfigDict

ROOT = Path(__file__).parents[1]
TEST_DATA = Path(os.environ.get("TEMPSEG_TEST_DATA") or ROOT.parent / "shared/data")


def load_config(name: str) -> ConfigDict:
    """Return what `--config=configs/<name>.py` gives."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def make_segmenter(name, *, num_classes=5, width=0.05, dtype=jnp.float32, remat=False):
    """Return a network of SEGMENTERS, by default a narrow one."""
    from tempseg_jax.models import SEGMENTERS
    from tempseg_jax.models.preprocessing import TORCHVISION

    return SEGMENTERS[name](
        num_classes=num_classes,
        preprocessing=TORCHVISION,
        width=width,
        dtype=dtype,
        remat=remat,
    )


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
