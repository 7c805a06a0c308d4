"""BatchNorm with an activation equals Flax's layers one after the other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.models.batch_norm import BatchNorm, normalized_conv
from tempseg_jax.models.ops import SameConv

SLOPES = [None, 0.0, 0.2]


def random(*shape, seed=0):
    return jnp.array(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def variables():
    return {
        "params": {"scale": random(3, seed=1), "bias": random(3, seed=2)},
        "batch_stats": {"mean": random(3, seed=3), "var": random(3, seed=4) ** 2},
    }


def library(slope, *, train):
    """Return the same function of (variables, x), from Flax's layers."""
    norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-3)

    def apply(variables, x):
        y, state = norm.apply(variables, x, mutable=["batch_stats"])
        if slope is not None:
            y = nn.leaky_relu(y, slope)
        return y, state["batch_stats"]

    return apply


def ours(slope, *, train):
    norm = BatchNorm(1e-3, jnp.float32, slope)

    def apply(variables, x):
        y, state = norm.apply(variables, x, train=train, mutable=["batch_stats"])
        return y, state["batch_stats"]

    return apply


def assert_close(actual, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        actual,
        expected,
    )


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("slope", SLOPES)
def test_it_equals_flax_with_all_gradients(slope, train):
    x = random(4, 6, 5, 3, seed=5) * 2 + 1
    weights = random(4, 6, 5, 3, seed=6)

    def loss(variables, x, apply):
        y, statistics = apply(variables, x)
        return jnp.sum(y * weights), (y, statistics)

    gradients = jax.grad(loss, argnums=(0, 1), has_aux=True)
    assert_close(
        gradients(variables(), x, ours(slope, train=train)),
        gradients(variables(), x, library(slope, train=train)),
    )


def test_a_gradient_penalty_through_it_has_the_gradient_of_flax():
    x = random(2, 4, 3, 3, seed=5)

    def penalty(variables, apply):
        slope = jax.grad(lambda x: jnp.sum(jnp.sin(apply(variables, x)[0])))
        return jnp.sum(slope(x) ** 2)

    assert_close(
        jax.grad(penalty)(variables(), ours(0.2, train=True))["params"],
        jax.grad(penalty)(variables(), library(0.2, train=True))["params"],
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_statistics_of_16_bit_values_are_summed_in_float32(dtype):
    x = (random(2, 64, 64, 3) * 0.1 + 3).astype(dtype)
    norm = BatchNorm(1e-3, dtype, None)
    y, state = norm.apply(variables(), x, train=True, mutable=["batch_stats"])
    exact = np.asarray(x, np.float64)
    old = variables()["batch_stats"]
    expected = {
        "mean": 0.9 * old["mean"] + 0.1 * exact.mean((0, 1, 2)),
        "var": 0.9 * old["var"] + 0.1 * exact.var((0, 1, 2)),
    }
    assert y.dtype == dtype
    assert state["batch_stats"]["mean"].dtype == jnp.float32
    assert_close(state["batch_stats"], expected)


@pytest.mark.parametrize("train", [False, True])
def test_a_bias_that_is_left_out_of_the_pixels_has_the_same_effect(train):
    x = random(2, 4, 4, 2, seed=5)
    conv = SameConv(3, 3, jnp.float32)
    params = conv.init(jax.random.key(0), x)["params"] | {"bias": random(3, seed=7)}

    class Layers(nn.Module):
        @nn.compact
        def __call__(self, x):
            conv = SameConv(3, 3, jnp.float32, name="conv1")
            norm = BatchNorm(1e-3, jnp.float32, 0.0, name="bn1")
            return normalized_conv(conv, norm, x, train=train)

    own = variables()
    y, state = Layers().apply(
        {
            "params": {"conv1": params, "bn1": own["params"]},
            "batch_stats": {"bn1": own["batch_stats"]},
        },
        x,
        mutable=["batch_stats"],
    )
    biased = conv.apply({"params": params}, x)
    expected, statistics = library(0.0, train=train)(own, biased)
    assert_close((y, state["batch_stats"]["bn1"]), (expected, statistics))
