import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.training.dynamic_scale import DynamicScale

from tempseg_jax import builders, gradient_accumulation, steps
from tempseg_jax.builders.field_combinations import NEEDS_WHOLE_BATCH
from tempseg_jax.gradient_accumulation import accumulated_step
from tempseg_jax.optim import Gradients
from tempseg_jax.types import IGNORE_LABEL
from tests.support import make_hyper, make_objective, make_state

CLASSES = 3


class Segmenter(nn.Module):
    """A segmenter without dropout and BatchNorm, which depend on the micro-batches."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.relu(nn.Conv(4, (3, 3))(image.astype(jnp.float32) / 255))
        return nn.Conv(self.num_classes, (1, 1))(x)


class Discriminator(nn.Module):
    """A discriminator without BatchNorm."""

    @nn.compact
    def __call__(self, probabilities, *, train):
        return nn.Conv(1, (4, 4), strides=4)(probabilities)


def hyper():
    return make_hyper(
        weight_decay=0.01,
        temperature_seg=0.5,
        temperature_adv=0.5,
    )


def initial_state(discriminator, *, scale=None):
    return make_state(
        Segmenter(), discriminator, size=8, num_classes=CLASSES, loss_scale=scale
    )


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, (8, 8, 8)).astype(np.uint8)
    for i in range(8):  # unequal numbers of scored pixels, none in two images
        label[i, : i % 4 * 8 // 3] = IGNORE_LABEL
    image = rng.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    return {"image": jnp.array(image), "label": jnp.array(label)}


def jitted(function, discriminator, **options):
    return jax.jit(
        functools.partial(
            function,
            objective=make_objective(Segmenter(), discriminator),
            **options,
        )
    )


@pytest.mark.parametrize(
    "discriminator", [None, Discriminator()], ids=["supervised", "adversarial"]
)
@pytest.mark.parametrize("micro_batches", [2, 4, 8])
def test_accumulated_gradients_equal_those_of_the_whole_batch(
    batch, discriminator, micro_batches
):
    state = initial_state(discriminator)
    whole, expected = jitted(steps.train_step, discriminator)(state, batch, hyper())
    accumulated, metrics = jitted(
        accumulated_step, discriminator, micro_batches=micro_batches
    )(state, batch, hyper())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4),
        (whole, expected),
        (accumulated, metrics),
    )


class Counter(nn.Module):
    """A discriminator that adds 1 to a running statistic for X, and 100 for p."""

    @nn.compact
    def __call__(self, probabilities, *, train):
        is_real = jnp.all((probabilities == 0) | (probabilities == 1))
        sums = self.variable("batch_stats", "sums", lambda: jnp.zeros(()))
        if train:
            sums.value += jnp.where(is_real, 1.0, 100.0)
        return nn.Conv(1, (4, 4), strides=4)(probabilities)


def test_running_statistics_are_updated_once_per_micro_batch(batch):
    without_void = batch | {"label": jnp.zeros_like(batch["label"])}
    accumulated, _ = jitted(accumulated_step, Counter(), micro_batches=4)(
        initial_state(Counter()), without_void, hyper()
    )
    assert accumulated.discriminator.batch_stats["sums"] == 4 * 1 + 4 * 100


class ManyOutputs(nn.Module):
    """A segmenter with features and auxiliary scores, for the terms that use them."""

    channels: int = 4

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.relu(nn.Conv(self.channels, (3, 3))(image.astype(jnp.float32) / 255))
        self.sow("intermediates", "features", x)
        self.sow("intermediates", "auxiliary_logits", nn.Conv(CLASSES, (1, 1))(x))
        return nn.Conv(CLASSES, (1, 1))(x)


def test_every_term_that_may_be_accumulated_has_the_gradients_of_the_whole_batch(
    batch,
):
    teacher = ManyOutputs(channels=5)
    variables = teacher.init(jax.random.key(9), batch["image"], train=False)
    objective = make_objective(
        ManyOutputs(),
        Discriminator(),
        teacher=teacher,
        pairwise=True,
        auxiliary=True,
        smooth_labels=True,
        real="matched",
    )
    numbers = hyper()._replace(
        teacher={"params": variables["params"]},
        distill_weight=2.0,
        distill_temperature=3.0,
        pairwise_weight=4.0,
        auxiliary_weight=0.4,
        label_smoothing=0.1,
    )
    state = make_state(ManyOutputs(), Discriminator(), size=8, num_classes=CLASSES)
    whole, expected = jax.jit(functools.partial(steps.train_step, objective=objective))(
        state, batch, numbers
    )
    accumulated, metrics = jax.jit(
        functools.partial(accumulated_step, micro_batches=4, objective=objective)
    )(state, batch, numbers)
    assert expected["loss_aux"] > 0 and expected["loss_distill"] > 0
    assert expected["loss_pairwise"] > 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4),
        (whole, expected),
        (accumulated, metrics),
    )


@pytest.mark.parametrize("micro_batches", [1, 2, 8])
def test_the_loss_scale_changes_once_in_a_step(batch, micro_batches):
    """It is halved once if gradients overflow, and doubled after 2000 finite steps."""
    state = initial_state(Discriminator(), scale=2.0**126)
    numbers = hyper()._replace(alpha=1e6)  # the segmenter's gradients overflow
    finite_steps = state.discriminator.loss_scale.replace(
        scale=jnp.float32(2.0**10), fin_steps=jnp.int32(1999)
    )
    state = state.replace(
        discriminator=state.discriminator.replace(loss_scale=finite_steps)
    )
    step, options = steps.train_step, {}
    if micro_batches > 1:
        step, options = accumulated_step, {"micro_batches": micro_batches}
    step = jitted(step, Discriminator(), **options)
    first, metrics = step(state, batch, numbers)
    assert metrics["skipped_g"] == 1 and metrics["skipped_d"] == 0
    assert first.segmenter.loss_scale.scale == 2.0**125
    assert first.discriminator.loss_scale.scale == 2.0**10
    second, _ = step(first, batch, numbers)
    assert second.segmenter.loss_scale.scale == 2.0**124
    assert second.discriminator.loss_scale.scale == 2.0**11


def test_an_overflow_in_a_micro_batch_skips_the_update_of_that_player_only(batch):
    state = initial_state(Discriminator(), scale=2.0**10)
    overflowing = state.replace(
        discriminator=state.discriminator.replace(
            loss_scale=state.discriminator.loss_scale.replace(
                scale=jnp.float32(jnp.inf)
            )
        )
    )
    after, metrics = jitted(accumulated_step, Discriminator(), micro_batches=2)(
        overflowing, batch, hyper()
    )
    assert metrics["skipped_d"] == 1 and metrics["skipped_g"] == 0
    jax.tree.map(
        np.testing.assert_array_equal,
        after.discriminator.params,
        overflowing.discriminator.params,
    )
    kernel = after.segmenter.params["Conv_0"]["kernel"]
    assert np.any(kernel != overflowing.segmenter.params["Conv_0"]["kernel"])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_a_sum_is_finite_only_if_the_gradients_of_every_micro_batch_are(first, second):
    def gradients(finite):
        scale = DynamicScale(scale=jnp.float32(1.0 if finite else 0.5))
        return Gradients({"w": jnp.ones(2)}, {}, scale, jnp.array(finite))

    total = gradient_accumulation._plus(gradients(first), gradients(second))
    assert total.finite == (first and second)
    assert total.loss_scale.scale == (1.0 if first and second else 0.5)
    np.testing.assert_array_equal(total.grads["w"], 2)


@pytest.mark.parametrize("field", NEEDS_WHOLE_BATCH)
def test_a_term_that_needs_the_whole_batch_is_refused(batch, field, demo_config):
    """By the step itself, for every field that the check of the config refuses."""
    section, name = field.split(".")
    values = {"critic_steps": 2, "class_weights": "inverse", "hard_pixels": 0.5}
    demo_config[section][name] = values.get(name, 0.1)
    demo_config.model.discriminator = "fcn"
    objective = builders.build_objective(demo_config, num_classes=CLASSES)
    with pytest.raises(ValueError, match="accumulate: 2 micro-batches.*set it to 1"):
        accumulated_step(
            initial_state(Discriminator()),
            batch,
            hyper(),
            micro_batches=2,
            objective=objective,
        )
