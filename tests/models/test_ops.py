"""Convolutions and pooling: values and gradients equal the library's."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.models import ops


@pytest.mark.parametrize(
    "ours, library",
    [
        (ops.max_pool_2x2, lambda x: nn.max_pool(x, (2, 2), (2, 2))),
        (
            ops.max_pool_3x3,
            lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1))),
        ),
    ],
    ids=["2x2", "3x3"],
)
def test_pooling_equals_the_librarys_and_its_gradients(ours, library):
    rng = np.random.default_rng(0)
    # A permutation has no equal values, so that each maximum is at one position.
    x = jnp.array(rng.permutation(2 * 6 * 8 * 3).reshape(2, 6, 8, 3), jnp.float32)
    x = x - 200  # negative values too, which are less than a border of zeros
    weights = jnp.array(rng.normal(size=(2, 3, 4, 3)), jnp.float32)
    np.testing.assert_array_equal(ours(x), library(x))
    for actual, expected in zip(
        jax.vjp(ours, x)[1](weights), jax.vjp(library, x)[1](weights), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("channels", [3, 40])  # fewer and more than the pixels
@pytest.mark.parametrize(
    ("kernel_size", "stride", "use_bias"),
    [
        (1, 1, True),
        (1, 2, False),
        (3, 1, True),
        (7, 1, True),
        (3, 2, False),
        (7, 2, True),
    ],
)
def test_same_conv_equals_the_librarys_and_its_gradients(
    channels, kernel_size, stride, use_bias
):
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(2, 4, 6, channels)), jnp.float32)
    shape = (2, 4 // stride, 6 // stride, 6)
    weights = jnp.array(rng.normal(size=shape), jnp.float32)
    ours = ops.SameConv(6, kernel_size, jnp.float32, stride, use_bias)
    library = nn.Conv(
        6,
        (kernel_size, kernel_size),
        strides=stride,
        padding=kernel_size // 2,
        use_bias=use_bias,
    )
    variables = ours.init(jax.random.key(0), x)
    if use_bias:
        variables = {"params": {**variables["params"], "bias": jnp.arange(6.0)}}

    assert_same_values_and_gradients(ours, library, variables, x, weights)


@pytest.mark.parametrize("size", [(4, 6), (6, 2), (5, 6), (1, 1)])
def test_halving_conv_equals_the_librarys_and_its_gradients(size):
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(2, *size, 3)), jnp.float32)
    shape = (2, -(-size[0] // 2), -(-size[1] // 2), 5)
    weights = jnp.array(rng.normal(size=shape), jnp.float32)
    ours, library = ops.HalvingConv(5, jnp.float32), nn.Conv(5, (4, 4), strides=2)
    variables = ours.init(jax.random.key(0), x)
    variables = {"params": {**variables["params"], "bias": jnp.arange(5.0)}}
    assert_same_values_and_gradients(ours, library, variables, x, weights)


def assert_same_values_and_gradients(ours, library, variables, x, weights):
    @functools.partial(jax.jit, static_argnums=0)
    def values_and_gradients(module):
        y, pullback = jax.vjp(module.apply, variables, x)
        return y, pullback(weights)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
        values_and_gradients(ours),
        values_and_gradients(library),
    )
