"""DropConnect: its masks, and its inference compared with samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.models import with_field
from tempseg_jax.models.drop_connect import DropConnectConv, mean_relu
from tempseg_jax.models.ops import SameConv
from tests.support import make_segmenter

RATE = 0.4


def layer(*, activate):
    return DropConnectConv(3, 1, jnp.float32, rate=RATE, activate=activate)


@pytest.fixture(scope="module")
def x():
    return jnp.array(np.random.default_rng(0).normal(size=(1, 2, 3, 64)), jnp.float32)


def test_it_has_the_parameters_of_a_convolution_and_in_the_mean_its_result(x):
    variables = layer(activate=False).init(jax.random.key(0), x, train=False)
    plain = SameConv(3, 1, jnp.float32)
    same = plain.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, same)
    y = layer(activate=False).apply(variables, x, train=False)
    np.testing.assert_allclose(y, plain.apply(variables, x), rtol=1e-5, atol=1e-6)


def test_in_float16_the_inference_of_large_features_is_finite(x):
    half = DropConnectConv(3, 1, jnp.float16, rate=RATE, activate=True)
    variables = half.init(jax.random.key(0), x, train=False)
    large = 300 * jnp.ones_like(x)
    expected = layer(activate=True).apply(variables, large, train=False)
    y = half.apply(variables, large.astype(jnp.float16), train=False)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(y, expected, rtol=1e-2)


def test_in_training_each_weight_is_dropped_at_the_rate(x):
    variables = layer(activate=False).init(jax.random.key(0), x, train=False)
    kernel = jnp.ones_like(variables["params"]["kernel"])
    variables = {"params": variables["params"] | {"kernel": kernel}}
    ones = jnp.eye(64)[None, :, None]  # each pixel reads one row of the kernel
    rows = layer(activate=False).apply(
        variables, ones, train=True, rngs={"dropout": jax.random.key(1)}
    )
    values = np.unique(np.asarray(rows).round(4))
    np.testing.assert_allclose(values, [0, 1 / (1 - RATE)], rtol=1e-4)
    assert np.mean(np.asarray(rows) == 0) == pytest.approx(RATE, abs=0.1)


def test_the_mask_is_independent_of_the_kernel_that_the_same_key_initializes(x):
    key = jax.random.key(0)
    variables = layer(activate=False).init(
        {"params": key, "dropout": key}, x, train=False
    )
    kernel = np.asarray(variables["params"]["kernel"])[0, 0]
    ones = jnp.eye(64)[None, :, None]
    rows = layer(activate=False).apply(
        variables, ones, train=True, rngs={"dropout": key}
    )
    kept = np.asarray(rows)[0, :, 0] != 0
    correlation = np.corrcoef(kept.ravel(), kernel.ravel())[0, 1]
    assert abs(correlation) < 4 / np.sqrt(kept.size)


def test_inference_is_the_mean_over_many_masks(x):
    """Up to the normal approximation of a sum of 64 terms."""
    variables = layer(activate=True).init(jax.random.key(0), x, train=False)
    expected = layer(activate=True).apply(variables, x, train=False)
    keys = jax.random.split(jax.random.key(2), 4000)
    samples = jax.vmap(
        lambda key: layer(activate=True).apply(
            variables, x, train=True, rngs={"dropout": key}
        )
    )(keys)
    np.testing.assert_allclose(samples.mean(axis=0), expected, atol=0.06)
    # The mean of the ReLU is not the ReLU of the mean.
    relu_of_mean = jax.nn.relu(SameConv(3, 1, jnp.float32).apply(variables, x))
    assert np.abs(relu_of_mean - expected).max() > 0.1


def test_the_mean_of_a_relu_of_a_normal_number_is_its_integral():
    u = np.linspace(-12, 12, 200_001)
    for mean, variance in ((0.3, 1.7), (-2.0, 0.5), (1.0, 1e-8)):
        closed = mean_relu(jnp.float32(mean), jnp.float32(variance))
        sigma = np.sqrt(max(variance, 1e-4))
        density = np.exp(-(((u - mean) / sigma) ** 2) / 2) / sigma / np.sqrt(2 * np.pi)
        integral = np.sum(np.maximum(u, 0) * density) * (u[1] - u[0])
        np.testing.assert_allclose(closed, integral, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["fcn8s", "resnet50_c4"])
def test_a_network_has_the_same_parameters_with_it_and_its_random_numbers(name):
    plain = make_segmenter(name)
    dropping = with_field(plain, "drop_connect", 0.5)
    image = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    shapes = [
        jax.eval_shape(lambda m=m: m.init(jax.random.key(0), image, train=False))
        for m in (plain, dropping)
    ]
    assert shapes[0] == shapes[1]


def test_dropout_is_set_in_the_backbone_of_fcn8s():
    changed = with_field(make_segmenter("fcn8s"), "dropout", 0.2)
    assert changed.backbone.dropout == 0.2
    assert with_field(make_segmenter("fcn8s"), "absent", 1) is None
