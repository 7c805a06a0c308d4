import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import steps
from tempseg_jax.gradient_accumulation import accumulated_step
from tempseg_jax.types import IGNORE_LABEL
from tests.support import make_objective, make_state

CLASSES = 3


class Segmenter(nn.Module):
    """Without dropout and BatchNorm, which are not the same in parts."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.relu(nn.Conv(4, (3, 3))(image.astype(jnp.float32) / 255))
        return nn.Conv(self.num_classes, (1, 1))(x)


class Judge(nn.Module):
    """Without BatchNorm."""

    @nn.compact
    def __call__(self, probabilities, *, train):
        return nn.Conv(1, (4, 4), strides=4)(probabilities)


class NormedJudge(nn.Module):
    """Counts, in its running mean, how often it was moved."""

    @nn.compact
    def __call__(self, probabilities, *, train):
        x = nn.Conv(2, (4, 4), strides=4)(probabilities)
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


def hyper(**values):
    return steps.Hyperparameters(
        seed=0,
        schedule=jnp.ones(9),
        learning_rate_g=0.1,
        learning_rate_d=0.01,
        momentum=0.9,
        weight_decay=0.01,
        temperature_seg=0.5,
        temperature_adv=0.5,
        temperature_d=1.0,
        alpha=0.3,
    )._replace(**values)


def initial_state(judge, *, scale=None):
    return make_state(Segmenter(), judge, size=8, num_classes=CLASSES, loss_scale=scale)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, (8, 8, 8)).astype(np.uint8)
    for i in range(8):  # parts with unequal numbers of scored pixels, one with none
        label[i, : i % 4 * 8 // 3] = IGNORE_LABEL
    image = rng.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    return {"image": jnp.array(image), "label": jnp.array(label)}


def step(function, judge, **more):
    return jax.jit(
        functools.partial(
            function,
            objective=make_objective(Segmenter(), judge),
            **more,
        )
    )


@pytest.mark.parametrize("judge", [None, Judge()], ids=["supervised", "adversarial"])
@pytest.mark.parametrize("rounds", [2, 4, 8])
def test_parts_move_both_players_as_the_whole_batch_does(batch, judge, rounds):
    state = initial_state(judge)
    whole, expected = step(steps.train_step, judge)(state, batch, hyper())
    parted, metrics = step(accumulated_step, judge, micro_batches=rounds)(
        state, batch, hyper()
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4),
        (whole, expected),
        (parted, metrics),
    )


def test_running_statistics_move_once_a_part(batch):
    state = initial_state(NormedJudge())
    parted, _ = step(accumulated_step, NormedJudge(), micro_batches=4)(
        state, batch, hyper()
    )
    variance = parted.discriminator.batch_stats["BatchNorm_0"]["var"]
    # Real then fake in each of 4 rounds: 8 moves away from the initial 1.
    assert np.all(variance < 1 - 0.5 * (1 - 0.9**8))


def test_an_overflow_in_one_part_skips_the_step_of_that_player(batch):
    state = initial_state(Judge(), scale=2.0**10)
    bad = state.replace(
        discriminator=state.discriminator.replace(
            loss_scale=state.discriminator.loss_scale.replace(
                scale=jnp.float32(jnp.inf)
            )
        )
    )
    moved, metrics = step(accumulated_step, Judge(), micro_batches=2)(
        bad, batch, hyper()
    )
    assert metrics["skipped_d"] == 1 and metrics["skipped_g"] == 0
    jax.tree.map(
        np.testing.assert_array_equal,
        moved.discriminator.params,
        bad.discriminator.params,
    )
    kernel = moved.segmenter.params["Conv_0"]["kernel"]
    assert np.any(kernel != bad.segmenter.params["Conv_0"]["kernel"])


def test_a_batch_with_unlabeled_images_is_refused(batch):
    marked = batch | {"labeled": jnp.ones(8, bool)}
    with pytest.raises(ValueError, match="accumulate: 2 micro-batches.*unlabeled"):
        step(accumulated_step, Judge(), micro_batches=2)(
            initial_state(Judge()), marked, hyper()
        )
