import functools

import jax
import jax.numpy as jnp
import pytest

from tempseg_jax.models import ops
from tempseg_jax.models.flops import count_flops, count_parameters
from tests.support import make_segmenter


def shape(*sides):
    return jax.ShapeDtypeStruct(sides, jnp.float32)


def test_parameters_are_the_scalars_of_all_arrays_or_shapes_in_a_tree():
    tree = {"a": jnp.zeros((2, 3)), "b": [shape(5), shape()]}
    assert count_parameters(tree) == 2 * 3 + 5 + 1
    assert count_parameters({}) == 0


def test_a_matrix_product_has_two_flops_per_multiply_add():
    assert count_flops(jnp.matmul, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7
    batched = count_flops(jnp.matmul, shape(4, 3, 5), shape(4, 5, 7))
    assert batched == 4 * 2 * 3 * 5 * 7


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_applies_its_kernel_at_every_output_including_padding(groups):
    conv = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(2, 2),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    flops = count_flops(conv, shape(2, 8, 8, 6), shape(3, 3, 6 // groups, 4))
    assert flops == 2 * (2 * 4 * 4 * 4) * (3 * 3 * 6 // groups)


def test_functions_inside_jit_remat_and_scan_count_each_time_they_run():
    def product(x, _):
        return jax.jit(jax.checkpoint(lambda x: x @ x))(x), None

    def function(x):
        return jax.lax.scan(product, x, length=3)[0]

    assert count_flops(function, shape(4, 4)) == 3 * 2 * 4**3


def test_the_branch_of_a_conditional_with_most_flops_is_counted():
    def function(x):
        cases = [lambda x: x, lambda x: x @ x @ x, lambda x: x @ x]
        return jax.lax.switch(x[0, 0].astype(int), cases, x)

    assert count_flops(function, shape(4, 4)) == 2 * 2 * 4**3


def test_the_default_form_of_a_choice_by_platform_is_counted():
    def function(x):
        return jax.lax.platform_dependent(
            x, cpu=lambda x: x @ x @ x, default=lambda x: x @ x
        )

    assert count_flops(function, shape(4, 4)) == 2 * 4**3


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_both_forms_of_a_convolution_have_the_same_flops(kernel_size):
    conv = ops.SameConv(6, kernel_size, jnp.float32)
    x = shape(2, 4, 6, 40)
    variables = jax.eval_shape(conv.init, jax.random.key(0), x)
    counts = {count_flops(conv.apply, variables, x)}
    for platform in ("cpu", "cuda"):
        with ops.forms_of(platform):
            counts.add(count_flops(conv.apply, variables, x))
    assert counts == {2 * (2 * 4 * 6 * 6) * (kernel_size**2 * 40)}


def test_a_network_agrees_with_xla_within_3_percent():
    # XLA leaves out the products with padding, and adds elementwise operations.
    segmenter = make_segmenter("resnet50", width=0.25)
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.uint8)
    init = functools.partial(segmenter.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    apply = functools.partial(segmenter.apply, train=False)
    counted = count_flops(apply, variables, image)
    xla_flops = jax.jit(apply).lower(variables, image).cost_analysis()["flops"]
    assert 0.97 < counted / xla_flops < 1.03
