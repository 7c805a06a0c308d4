import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from tempseg_jax.aot import compilation
from tempseg_jax.aot.cards import CARDS
from tests.support import load_config


@pytest.fixture
def config():
    config = load_config("demo")
    config.model.width, config.objective.alpha = 0.05, 0.0
    config.data.crop_size, config.data.batch_size = 32, 4
    return config


def compile_for(card, config, devices=1):
    return compilation.compile_step(
        config, num_classes=8, card=CARDS[card], num_devices=devices
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_step_of_a_config_is_traced_without_data(accumulate, config):
    config.accumulate = accumulate
    devices = Mesh(np.array(jax.devices()[:1]), ("data",))
    lowered = compilation._lower(config, num_classes=8, devices=devices)
    name = "train_step" if accumulate == 1 else "accumulated_step"
    assert f"jit_{name}" in lowered.as_text()[:200]
    (_, batch, _), _ = lowered.in_avals
    assert batch["image"].shape == (4, 32, 32, 3)
    assert batch["label"].shape == (4, 32, 32)


def test_a_precision_that_the_card_lacks_is_refused_before_anything_is_compiled(config):
    config.precision = "bfloat16"
    with pytest.raises(ValueError, match="has no bfloat16 products"):
        compile_for("rtx2070s", config)


def test_a_batch_that_does_not_divide_among_the_devices_is_refused(config):
    config.accumulate = 2
    with pytest.raises(ValueError, match="2 images do not divide evenly among 4"):
        compile_for("h100", config, devices=4)


@pytest.mark.parametrize("installed", [None, "0.0.1"])
def test_without_the_compiler_of_this_jax_the_message_has_the_command(
    installed, config, monkeypatch
):
    monkeypatch.setattr(compilation, "_version", lambda package: installed)
    command = rf'pip install "jax\[cuda12-local\]=={jax.__version__}" nvidia-cuda-nvcc'
    with pytest.raises(ValueError, match=command):
        compile_for("h100", config)


def test_the_compiler_of_this_jax_is_accepted(monkeypatch):
    monkeypatch.setattr(compilation, "_version", lambda package: jax.__version__)
    assert compilation.missing_compiler() is None
