import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import builders
from tempseg_jax.builders.plan import Plan
from tempseg_jax.data.catalog import Split
from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION
from tests.support import load_config


@pytest.fixture
def config():
    config = load_config("demo")
    config.model.width = 0.05
    return config


def test_steps_are_computed_from_epochs_and_the_size_of_the_data(config):
    config.epochs, config.optimizer.warmup_epochs = 50, 5
    config.data.batch_size = 16
    assert Plan.of(config, images=10_582) == Plan(50 * 661, 5 * 661, 661)


def test_a_shortened_run_has_the_whole_schedule(config):
    config.epochs, config.optimizer.warmup_epochs = 50, 5
    config.steps = 200
    plan = Plan.of(config, images=512)
    assert plan == Plan(steps=200, warmup_steps=20, evaluate_every=32)
    schedule = builders.hyperparameters(config, plan).learning_rate_schedule
    assert len(schedule) >= 200 and not schedule[200:].any()
    schedule = schedule[:200]
    assert schedule.argmax() in (19, 20)
    assert schedule[-1] < 1e-3


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
def test_every_number_of_steps_has_a_schedule(config, steps):
    config.steps = steps
    plan = Plan.of(config, images=512)
    schedule = builders.hyperparameters(config, plan).learning_rate_schedule
    assert len(schedule) == builders.numbers.SCHEDULE_BLOCK
    assert np.all(schedule[:steps] > 0)


def test_the_evaluation_interval_is_computed_from_epochs_and_at_least_one_step(config):
    config.evaluate_every_epochs = 2.5
    assert Plan.of(config, images=512).evaluate_every == 80
    config.evaluate_every_epochs = 1e-6
    assert Plan.of(config, images=512).evaluate_every == 1
    config.evaluate_every_epochs = 0.0
    assert Plan.of(config, images=512).evaluate_every == 0


def test_a_batch_larger_than_the_data_is_refused(config):
    with pytest.raises(ValueError, match="data.batch_size: 16 is more than the 15 im"):
        Plan.of(config, images=15)


def test_t_g_is_used_in_both_losses_unless_one_has_its_own_temperature(config):
    plan = Plan.of(config, images=512)
    config.objective.temperature_g, config.objective.temperature_d = 0.5, 2.0
    both = builders.hyperparameters(config, plan)
    assert both.temperature_seg == both.temperature_adv == 0.5
    assert both.temperature_d == 2.0
    config.objective.temperature_adv = 3.0
    own_adv = builders.hyperparameters(config, plan)
    assert (own_adv.temperature_seg, own_adv.temperature_adv) == (0.5, 3.0)
    config.objective.temperature_adv, config.objective.temperature_seg = None, 4.0
    own_seg = builders.hyperparameters(config, plan)
    assert (own_seg.temperature_seg, own_seg.temperature_adv) == (4.0, 0.5)


def test_unknown_pretrained_weights_are_refused(config):
    config.model.pretrained = "vgg19"
    with pytest.raises(ValueError, match="model.pretrained='vgg19' is neither"):
        builders.build_objective(config, num_classes=8)


def test_preprocessing_is_that_of_the_pretrained_weights_or_as_given(config):
    def preprocessing(**kwargs):
        objective = builders.build_objective(config, num_classes=8, **kwargs)
        return objective.segmenter.preprocessing

    assert preprocessing() == TORCHVISION
    config.model.pretrained = "keras_resnet50"
    assert preprocessing() == CAFFE
    assert preprocessing(preprocessing=TORCHVISION) == TORCHVISION


def test_with_alpha_zero_there_is_no_discriminator(config):
    config.objective.alpha = 0.0
    objective = builders.build_objective(config, num_classes=8)
    assert objective.discriminator is None
    assert builders.abstract_state(config, objective).discriminator is None


def test_the_initial_state_depends_only_on_the_seed_and_has_the_abstract_shapes(config):
    objective = builders.build_objective(config, num_classes=8)
    state = builders.initial_state(config, objective, class_names=())
    again = builders.initial_state(config, objective, class_names=())
    jax.tree.map(np.testing.assert_array_equal, state, again)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    assert builders.abstract_state(config, objective) == shapes
    config.seed = 1
    other = builders.initial_state(config, objective, class_names=())
    for name in ("segmenter", "discriminator"):
        kernels = [
            [x for x in jax.tree.leaves(getattr(s, name).params) if x.ndim == 4]
            for s in (state, other)
        ]
        # Score layers start at zero and upsampling is bilinear, with every seed.
        same = [bool(jnp.all(a == b)) for a, b in zip(*kernels, strict=True)]
        assert sum(same) == (4 if name == "segmenter" else 0)


def test_class_names_are_known_without_the_data(config):
    assert len(builders.class_names(config)) == 8
    for name, count in (("fcn_voc", 21), ("fcn_cityscapes", 19), ("fcn_camvid", 11)):
        assert len(builders.class_names(load_config(name))) == count
    config.data.name = "folder"
    with pytest.raises(ValueError, match="data.options.class_names.*list the names"):
        builders.class_names(config)


@pytest.mark.parametrize(
    ("changes", "described"),
    [
        ({}, "dcgan"),
        ({"objective.conditional": True}, "dcgan, conditional"),
        ({"optimizer.discriminator": "rmsprop"}, "dcgan, rmsprop"),
        ({"objective.alpha": 0.0}, None),
    ],
)
def test_a_checkpoint_tells_discriminators_of_other_variables_or_states_apart(
    config, changes, described
):
    config.update_from_flattened_dict(changes)
    split = Split("scenes", "val", [], ("a", "b"), np.zeros((2, 3), np.uint8))
    objective = builders.build_objective(config, num_classes=2)
    model = builders.describe_model(config, objective, split)
    assert model["discriminator"] == described
