import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import gradient_accumulation, steps
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


class BatchNormDiscriminator(nn.Module):
    """A discriminator whose running variance shows how often it was updated."""

    @nn.compact
    def __call__(self, probabilities, *, train):
        x = nn.Conv(2, (4, 4), strides=4)(probabilities)
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


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


def test_running_statistics_are_updated_once_per_micro_batch(batch):
    state = initial_state(BatchNormDiscriminator())
    accumulated, _ = jitted(
        accumulated_step, BatchNormDiscriminator(), micro_batches=4
    )(state, batch, hyper())
    variance = accumulated.discriminator.batch_stats["BatchNorm_0"]["var"]
    # Real, then fake maps in each of 4 micro-batches: 8 updates of the initial 1.
    assert np.all(variance < 1 - 0.5 * (1 - 0.9**8))


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
        return Gradients({"w": jnp.ones(2)}, {}, None, jnp.array(finite))

    total = gradient_accumulation._plus(gradients(first), gradients(second))
    assert total.finite == (first and second)
    np.testing.assert_array_equal(total.grads["w"], 2)


def test_a_batch_with_unlabeled_images_is_refused(batch):
    more = batch | {"unlabeled_image": batch["image"]}
    state = initial_state(Discriminator())
    accumulated = jitted(accumulated_step, Discriminator(), micro_batches=2)
    with pytest.raises(ValueError, match="accumulate: 2 micro-batches.*unlabeled"):
        accumulated(state, more, hyper())
