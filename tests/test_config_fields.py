"""Every field of the config is checked before anything is built."""

import math

import pytest
from ml_collections import ConfigDict

from tempseg_jax import describe, evaluate
from tempseg_jax.builders.config_fields import (
    CHOICES,
    MAY_BE_NONE,
    OTHER_FIELDS,
    RANGES,
    Range,
    check_fields,
)
from tempseg_jax.builders.plan import Plan
from tempseg_jax.inference.settings import DEFAULT_SETTINGS
from tempseg_jax.sweep.run import run_sweep
from tempseg_jax.sweep.scope import Scope
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


def test_every_field_of_the_config_is_checked():
    names = {
        "data.options" if name.startswith("data.options.") else name
        for name, _ in fields(load_config("fcn_voc"))
    }
    checked = [*RANGES, *CHOICES, *OTHER_FIELDS]
    assert sorted(checked) == sorted(names)
    assert set(MAY_BE_NONE) <= set(RANGES)


@pytest.mark.parametrize("field", [*RANGES, *CHOICES, *OTHER_FIELDS])
def test_a_missing_field_is_named(field):
    saved = load_config("fcn_voc").to_dict()
    section, _, name = field.rpartition(".")
    del (saved[section] if section else saved)[name]
    with pytest.raises(ValueError, match=f"^{field}: missing from the config"):
        check_fields(ConfigDict(saved))


@pytest.mark.parametrize("section", ["data", "model", "objective", "optimizer"])
def test_a_section_that_has_no_fields_is_refused(section):
    saved = load_config("fcn_voc").to_dict() | {section: None}
    with pytest.raises(ValueError, match=rf"^{section}\.\w+: missing from the config"):
        check_fields(ConfigDict(saved))


@pytest.mark.parametrize("value", [None, "0.5", True, [1]])
@pytest.mark.parametrize("field", [*RANGES, *CHOICES])
def test_a_value_of_another_type_is_refused(field, value):
    saved = load_config("fcn_voc").to_dict()
    section, _, name = field.rpartition(".")
    (saved[section] if section else saved)[name] = value
    config = ConfigDict(saved)
    if value is None and field in MAY_BE_NONE:
        check_fields(config)
        return
    with pytest.raises(ValueError, match=f"^{field}: .* is not (allowed|one of)"):
        check_fields(config)


def test_the_first_releases_name_of_the_adversary_is_refused_with_the_new_name():
    saved = load_config("fcn_voc").to_dict()
    saved["objective"]["gan"] = saved["objective"].pop("adversary")
    message = "^objective.gan: now named objective.adversary$"
    with pytest.raises(ValueError, match=message):
        check_fields(ConfigDict(saved))


def test_a_negative_evaluation_interval_means_never_as_in_the_first_release():
    config = change("evaluate_every_epochs", -1.0)
    check_fields(config)
    assert Plan.of(config, images=512).evaluate_every == 0


@pytest.mark.parametrize("name", ["fcn_voc", "resnet50_camvid", "demo"])
def test_the_configs_of_the_repository_pass(name):
    check_fields(load_config(name))


@pytest.mark.parametrize(
    "field, value, allowed",
    [
        ("seed", -1, "of at least 0 and below 2147483648"),
        ("seed", 2**40, "of at least 0"),
        ("epochs", 0, "of at least 1"),
        ("steps", 0, "of at least 1"),
        ("accumulate", 0, "of at least 1"),
        ("data.batch_size", 0, "of at least 1"),
        ("data.min_scale", 0.0, "above 0"),
        ("data.cat_max_ratio", 1.5, "above 0 and of at most 1"),
        ("data.num_workers", -1, "of at least 0"),
        ("model.width", 0.0, "of at least 0.01"),
        ("model.width", 0.001, "of at least 0.01"),
        ("evaluate_every_steps", 0, "of at least 1"),
        ("evaluate_images", -1, "of at least 0"),
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
        ("optimizer.warmup_epochs", -1.0, "of at least 0"),
        ("evaluate_every_epochs", math.nan, "a finite number$"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_name_of_its_field(
    field, value, allowed
):
    with pytest.raises(
        ValueError, match=f"^{field}: {value} is not allowed.*{allowed}"
    ):
        check_fields(change(field, value))


def test_steps_between_evaluations_replace_the_epochs():
    config = change("evaluate_every_steps", 7)
    assert Plan.of(config, images=1600).evaluate_every == 7


def test_a_part_of_an_epoch_can_be_warm_up():
    config = change("optimizer.warmup_epochs", 0.1)
    check_fields(config)
    assert Plan.of(config, images=1600).warmup_steps == 10  # of 100 steps per epoch
    assert change("optimizer.warmup_epochs", 3).optimizer.warmup_epochs == 3


@pytest.mark.parametrize(
    "field, value, choices",
    [
        ("precision", "int8", "bfloat16, float16, float32"),
        ("data.on_error", "ignore", "raise, skip"),
        ("data.name", "imagenet", "cityscapes, folder, scenes, voc"),
        ("model.name", "fcn16s", "fcn8s, mobilenet_v3_large, resnet101"),
        ("model.head", "psp", "aspp, deeplabv3plus, fcn, lraspp, score"),
        ("model.discriminator", "patchgan", "dcgan"),
        ("objective.adversary", "began", "dcgan, hinge, lsgan"),
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
    config.objective.alpha = 0.0  # no D
    check_fields(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("objective.given_class_weights", (1.0, 2.0)),
        ("objective.temperature_end", 0.5),
        ("distill.teacher", "runs/teacher"),
    ],
)
def test_a_value_that_would_have_no_effect_is_refused(field, value):
    config = change(field, value)
    config.distill.weight = 0.0
    with pytest.raises(ValueError, match=f"^{field}: .* has no effect"):
        check_fields(config)


def test_frozen_statistics_without_pretrained_weights_are_refused():
    config = change("model.freeze_batch_norm", "all")
    config.model.pretrained = ""
    with pytest.raises(ValueError, match="model.freeze_batch_norm: 'all' keeps the st"):
        check_fields(config)


@pytest.mark.parametrize("field", ["steps", "data.unlabeled_batch_size"])
def test_a_count_is_a_whole_number(field):
    # As --config.steps=1e3 is with configs/saved.py, where None has no type.
    config = load_config("fcn_voc").to_dict()
    section, _, name = field.rpartition(".")
    (config[section] if section else config)[name] = 1e3
    with pytest.raises(ValueError, match=f"^{field}: 1000.0 .* a whole number of"):
        check_fields(ConfigDict(config))


def test_a_range_describes_the_numbers_that_it_allows():
    assert str(Range(above=0, at_most=1)) == "a finite number above 0 and of at most 1"
    assert str(Range(below=2**32)) == "a finite number below 4294967296"
    assert str(Range()) == "a finite number"
    assert Range(above=0).contains(1e-9) and not Range(above=0).contains(0)
    assert not Range(below=1).contains(1) and Range(at_most=1).contains(1)


def _describe(config, folder):
    describe.describe(config)


def _evaluate(config, folder):
    evaluate.evaluate(
        config,
        folder,
        checkpoint="best",
        split_name=None,
        settings=DEFAULT_SETTINGS,
        fit=False,
    )


def _run_sweep(config, folder):
    run_sweep(
        config,
        folder,
        scope=Scope(tables=("4",), seeds=1, test_split="", train_images=3),
        shard=(1, 1),
        keep_checkpoints=False,
    )


@pytest.mark.parametrize("use", [_describe, _evaluate, _run_sweep])
def test_a_config_is_checked_before_anything_is_touched(use, tmp_path):
    config = load_config("demo")
    config.steps = 0
    config.data.data_dir = str(tmp_path / "data")
    with pytest.raises(ValueError, match="^steps: 0 is not allowed"):
        use(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
