import functools

import jax
import jax.numpy as jnp
import pytest

from tempseg_jax.models.flops import count_flops
from tests.support import make_segmenter


def shape(*sides):
    return jax.ShapeDtypeStruct(sides, jnp.float32)


def test_a_matrix_product_is_two_for_each_triple():
    assert count_flops(jnp.matmul, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7
    batched = count_flops(jnp.matmul, shape(4, 3, 5), shape(4, 5, 7))
    assert batched == 4 * 2 * 3 * 5 * 7


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_its_kernel_at_every_output_padding_included(groups):
    conv = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(2, 2),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    found = count_flops(conv, shape(2, 8, 8, 6), shape(3, 3, 6 // groups, 4))
    assert found == 2 * (2 * 4 * 4 * 4) * (3 * 3 * 6 // groups)


def test_what_is_inside_other_functions_counts_as_often_as_it_runs():
    def product(x, _):
        return jax.jit(jax.checkpoint(lambda x: x @ x))(x), None

    def function(x):
        return jax.lax.scan(product, x, length=3)[0]

    assert count_flops(function, shape(4, 4)) == 3 * 2 * 4**3


def test_a_network_agrees_with_xla_but_for_padding_and_trifles():
    segmenter = make_segmenter("resnet50", width=0.25)
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.uint8)
    init = functools.partial(segmenter.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    apply = functools.partial(segmenter.apply, train=False)
    counted = count_flops(apply, variables, image)
    by_xla = jax.jit(apply).lower(variables, image).cost_analysis()["flops"]
    assert 0.97 < counted / by_xla < 1.03
