"""Depthwise convolution: both forms are the grouped convolution of Linen."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.models import ops


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "kernel_size, stride, dilation", [(3, 1, 1), (5, 2, 1), (5, 1, 2)]
)
def test_values_and_gradients_are_those_of_a_grouped_convolution(
    platform, kernel_size, stride, dilation
):
    x, kernel, weights = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate(
            [
                (2, 8, 6, 3),
                (kernel_size, kernel_size, 1, 3),
                (2, 8 // stride, 6 // stride, 3),
            ]
        )
    )
    own = ops.DepthwiseConv(kernel_size, jnp.float32, stride, dilation)
    linen = nn.Conv(
        3,
        (kernel_size, kernel_size),
        strides=stride,
        padding=dilation * (kernel_size // 2),
        kernel_dilation=dilation,
        feature_group_count=3,
        use_bias=False,
    )

    def results(module):
        def apply(x, kernel):
            return module.apply({"params": {"kernel": kernel}}, x)

        with ops.forms_of(platform):
            y, gradient = jax.vjp(apply, x, kernel)
            return y, *gradient(weights)

    for actual, expected in zip(results(own), results(linen), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
