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
    # Few values, so that most windows have several maxima, and some negative ones,
    # which are less than a border of zeros.
    x = jnp.array(rng.integers(-3, 2, (2, 6, 8, 3)), jnp.float32)
    weights = jnp.array(rng.normal(size=(2, 3, 4, 3)), jnp.float32)
    np.testing.assert_array_equal(ours(x), library(x))
    for actual, expected in zip(
        jax.vjp(ours, x)[1](weights), jax.vjp(library, x)[1](weights), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_relu_has_the_librarys_gradient_and_lets_nan_through():
    x = jnp.array([-2.0, -0.0, 0.0, 3.0, jnp.nan])
    np.testing.assert_array_equal(ops.relu(x), nn.relu(x))
    gradient = jax.grad(lambda x: jnp.sum(ops.relu(x) * 5))(x)
    np.testing.assert_array_equal(gradient[:4], [0, 0, 0, 5])
    assert np.isnan(jax.grad(lambda x: jnp.sum(ops.relu(x) ** 2))(x)[4])


@pytest.mark.parametrize("blocks", [2, 6])
def test_the_output_of_a_residual_block_is_computed_once(blocks):
    def loss(kernels, x):
        for kernel in kernels:
            x = ops.relu(x + 2 * (x @ kernel))
        return jnp.sum(x**2)

    kernels = [jnp.eye(16)] * blocks
    x = jnp.ones((2, 4, 4, 16))
    program = jax.jit(jax.grad(loss)).lower(kernels, x).compile().as_text()
    fusions = [line for line in program.splitlines() if " fusion(" in line]
    operands = [line.split(" fusion(")[1].split("), kind")[0] for line in fusions]
    # With a maximum, the last block has two more operands for each block before it.
    assert max(x.count("%") for x in operands) <= 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_gradient_of_a_bias_is_summed_in_float32(dtype):
    g = jnp.full((4, 32, 32, 2), 1.25, dtype)
    x, bias = jnp.zeros_like(g), jnp.array([0.5, -0.5], jnp.float32)
    y, pullback = jax.vjp(ops.add_bias, x, bias)
    np.testing.assert_array_equal(y[0, 0, 0], bias)
    x_gradient, bias_gradient = pullback(g)
    assert (x_gradient.dtype, bias_gradient.dtype) == (dtype, jnp.float32)
    # A sum in 16 bits has not enough digits for it.
    np.testing.assert_array_equal(bias_gradient, 1.25 * 4 * 32 * 32)


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


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("inner", [0, 1])
def test_a_gradient_of_a_gradient_of_halving_conv_is_the_librarys(inner, platform):
    """The penalty of `wgan_gp` needs it for x; here for x and for the kernel."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 8, 6, 3))
    kernel = 0.1 * jax.random.normal(keys[1], (4, 4, 3, 5))
    weights = jax.random.normal(keys[2], (2, 4, 3, 5))
    bias = jnp.arange(5.0)

    def results(module):
        def loss(x, kernel):
            parameters = {"kernel": kernel, "bias": bias}
            return jnp.sum(weights * module.apply({"params": parameters}, x) ** 2)

        def penalty(x, kernel):
            return jnp.sum(jnp.sin(jax.grad(loss, inner)(x, kernel)))

        with ops.forms_of(platform):  # around the traces of the gradients too
            return jax.jit(jax.value_and_grad(penalty, (0, 1)))(x, kernel)

    ours = results(ops.HalvingConv(5, jnp.float32))
    library = results(nn.Conv(5, (4, 4), strides=2))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
        ours,
        library,
    )


@pytest.mark.parametrize("size", [(4, 6), (24, 20)])
@pytest.mark.parametrize("dilation", [2, 7])
def test_a_dilated_convolution_is_that_of_linen_in_all_forms(size, dilation):
    x = jax.random.normal(jax.random.key(0), (2, *size, 32))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 32, 5))
    weights = jax.random.normal(jax.random.key(2), (2, *size, 5))
    own = ops.SameConv(5, 3, jnp.float32, use_bias=False, dilation=dilation)
    linen = nn.Conv(
        5, (3, 3), padding=dilation, kernel_dilation=dilation, use_bias=False
    )

    def results(module, platform):
        def apply(x, kernel):
            return module.apply({"params": {"kernel": kernel}}, x)

        with ops.forms_of(platform):  # around the trace of the gradient too
            y, gradient = jax.vjp(apply, x, kernel)
            return y, *gradient(weights)

    expected = results(linen, "cpu")
    for platform in ("cpu", "cuda"):
        for a, b in zip(results(own, platform), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
