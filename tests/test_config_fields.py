"""Every field of the config is checked before anything is built."""

import math

import pytest
from ml_collections import ConfigDict

from tempseg_jax.config_fields import CHOICES, RANGES, Range, check_fields
from tests.support import load_config


def fields(config, prefix=""):
    """Yield (dotted name, type) of every field."""
    for name in config:
        kind = config.get_type(name)
        if kind is ConfigDict:
            yield from fields(config[name], f"{prefix}{name}.")
        else:
            yield prefix + name, kind


def change(field, value):
    """Return the complete config with another value of one field."""
    config = load_config("fcn_voc")
    config.update_from_flattened_dict({field: value})
    return config


def test_every_number_of_the_config_has_a_range():
    numeric = {
        name for name, kind in fields(load_config("fcn_voc")) if kind in (int, float)
    }
    assert numeric == set(RANGES)


@pytest.mark.parametrize("name", ["fcn_voc", "resnet50_camvid", "demo"])
def test_the_configs_of_the_repository_pass(name):
    check_fields(load_config(name))


@pytest.mark.parametrize(
    "field, value, allowed",
    [
        ("seed", -1, "of at least 0 and below 4.29497e\\+09"),
        ("seed", 2**40, "of at least 0"),
        ("epochs", 0, "of at least 1"),
        ("steps", 0, "of at least 1"),
        ("accumulate", 0, "of at least 1"),
        ("data.batch_size", 0, "of at least 1"),
        ("data.min_scale", 0.0, "above 0"),
        ("data.cat_max_ratio", 1.5, "above 0 and of at most 1"),
        ("data.num_workers", -1, "of at least 0"),
        ("model.width", 0.0, "above 0"),
        ("objective.alpha", -0.1, "of at least 0"),
        ("objective.alpha", math.nan, "a finite number"),
        ("objective.critic_steps", 0, "of at least 1"),
        ("objective.temperature_g", 0.0, "above 0"),
        ("objective.temperature_d", -1.0, "above 0"),
        ("objective.temperature_seg", math.inf, "a finite number above 0"),
        ("objective.temperature_adv", math.nan, "a finite number above 0"),
        ("optimizer.learning_rate_g", -1.0, "of at least 0"),
        ("optimizer.learning_rate_d", math.nan, "a finite number"),
        ("optimizer.momentum", 1.5, "of at least 0 and below 1"),
        ("optimizer.weight_decay", -1e-4, "of at least 0"),
        ("optimizer.warmup_epochs", -1, "of at least 0"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_name_of_its_field(
    field, value, allowed
):
    with pytest.raises(
        ValueError, match=f"^{field}: {value} is not allowed.*{allowed}"
    ):
        check_fields(change(field, value))


@pytest.mark.parametrize(
    "field, value, choices",
    [
        ("precision", "int8", "bfloat16, float16, float32"),
        ("data.name", "imagenet", "cityscapes, folder, scenes, voc"),
        ("model.name", "fcn16s", "fcn8s, resnet50"),
        ("model.discriminator", "patchgan", "dcgan"),
        ("objective.adversary", "began", "dcgan, lsgan"),
    ],
)
def test_an_unknown_name_is_refused_with_the_allowed_ones(field, value, choices):
    with pytest.raises(
        ValueError, match=f"^{field}: '{value}' is not one of.*{choices}"
    ):
        check_fields(change(field, value))
    assert field in CHOICES


def test_fields_that_depend_on_each_other_are_checked_together():
    config = change("data.min_scale", 3.0)
    with pytest.raises(ValueError, match="data.min_scale: 3.0 is above.*2.0"):
        check_fields(config)
    config = change("accumulate", 3)
    with pytest.raises(ValueError, match="accumulate: a batch of 16 images.*divisor"):
        check_fields(config)
    config = change("accumulate", 2)
    config.objective.critic_steps = 2
    with pytest.raises(ValueError, match="objective.critic_steps: 2 needs.*accumulate"):
        check_fields(config)


def test_a_range_describes_the_numbers_that_it_allows():
    assert str(Range(above=0, at_most=1)) == "a finite number above 0 and of at most 1"
    assert Range(above=0).contains(1e-9) and not Range(above=0).contains(0)
    assert not Range(below=1).contains(1) and Range(at_most=1).contains(1)
