"""Operations whose form depends on the platform: each target gets its own form."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.models import ops
from tests.support import make_segmenter

X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 6, 40)), jnp.float32)
SAME, HALVING = ops.SameConv(6, 3, jnp.float32), ops.HalvingConv(5, jnp.float32)
LIBRARY = {SAME: nn.Conv(6, (3, 3), padding=1), HALVING: nn.Conv(5, (4, 4), strides=2)}
# StableHLO that only the CPU's form has, and that only the default form has: a matrix
# product against a convolution; a 2x2 convolution to 2 * 2 * 40 channels against a
# transposed convolution.
CPU_FORM = {SAME: "stablehlo.dot_general", HALVING: ", tensor<2x2x5x160xf32>) ->"}
DEFAULT_FORM = {SAME: "stablehlo.convolution(", HALVING: "lhs_dilate = [2, 2]"}

by_module = pytest.mark.parametrize("module", LIBRARY, ids=["SameConv", "HalvingConv"])


def gradients(apply):
    """Return gradients of a nonlinear function of the output, and the output."""

    def loss(variables, x):
        y = apply(variables, x)
        return jnp.sum(jnp.sin(y)), y

    return jax.grad(loss, argnums=(0, 1), has_aux=True)


def mapped(apply):
    def second(variables, x):
        both = jax.vmap(gradients(apply), in_axes=(None, 0))
        return jax.tree.map(lambda leaf: leaf[1], both(variables, jnp.stack([-x, x])))

    return second


def in_a_scan(apply):
    """Compute gradients in the body of a scan, as gradient accumulation does."""

    def last(variables, x):
        shapes = jax.eval_shape(gradients(apply), variables, x)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.scan(
            lambda _, x: (gradients(apply)(variables, x), None),
            zeros,
            jnp.stack([-x, x]),
        )[0]

    return last


def of_a_scan(apply):
    """Compute gradients of a scan whose body is rematerialized."""

    def outputs(variables, x):
        body = jax.checkpoint(lambda carry, x: (carry, apply(variables, x)))
        return jax.lax.scan(body, 0.0, jnp.stack([-x, x]))[1]

    return gradients(outputs)


def of_a_gradient_penalty(apply):
    def penalty(variables, x):
        slope = jax.grad(lambda x: jnp.sum(jnp.sin(apply(variables, x))))
        return jnp.sum(slope(x) ** 2)

    return jax.grad(penalty)


TRANSFORMATIONS = {
    "grad": gradients,
    "remat": lambda apply: gradients(jax.checkpoint(apply)),
    "vmap": mapped,
    "grad in scan": in_a_scan,
    "grad of scan and remat": of_a_scan,
    "grad of grad": of_a_gradient_penalty,
}


def stablehlo(function, *args, platforms):
    exported = jax.export.export(jax.jit(function), platforms=platforms)(*args)
    return exported.mlir_module()


def assert_each_platform_has_its_form(module, function, *args):
    cpu_form, default_form = CPU_FORM[module], DEFAULT_FORM[module]
    cpu = stablehlo(function, *args, platforms=["cpu"])
    cuda = stablehlo(function, *args, platforms=["cuda"])
    both = stablehlo(function, *args, platforms=["cpu", "cuda"])
    assert (cpu_form in cpu, default_form in cpu) == (True, False)
    assert (cpu_form in cuda, default_form in cuda) == (False, True)
    assert (cpu_form in both, default_form in both) == (True, True)


def assert_close(actual, expected):
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3)
    jax.tree.map(compare, actual, expected)


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@by_module
def test_gradients_take_the_form_of_the_target_platform(module, transformation):
    transform = TRANSFORMATIONS[transformation]
    variables = module.init(jax.random.key(0), X)
    function = transform(module.apply)
    assert_each_platform_has_its_form(module, function, variables, X)
    expected = jax.jit(transform(LIBRARY[module].apply))(variables, X)
    assert_close(jax.jit(function)(variables, X), expected)


def test_an_export_for_all_sizes_has_both_forms():
    module = ops.SameConv(6, 1, jnp.float32)
    variables = module.init(jax.random.key(0), X)
    b, h, w = jax.export.symbolic_shape("b, h, w")
    x = jax.ShapeDtypeStruct((b, h, w, 40), jnp.float32)
    apply = functools.partial(module.apply, variables)
    assert_each_platform_has_its_form(SAME, apply, x)


@by_module
def test_the_compiled_program_contains_nothing_of_the_other_form(module):
    variables = module.init(jax.random.key(0), X)

    def compile_gradients():
        return jax.jit(gradients(module.apply)).lower(variables, X).compile()

    chosen_in_lowering = compile_gradients()
    with ops.forms_of("cpu"):
        chosen_in_tracing = compile_gradients()
    assert "conditional" not in chosen_in_lowering.as_text()
    memory, expected = (
        program.memory_analysis().temp_size_in_bytes
        for program in (chosen_in_lowering, chosen_in_tracing)
    )
    assert memory == expected
    jax.tree.map(
        np.testing.assert_array_equal,
        chosen_in_lowering(variables, X),
        chosen_in_tracing(variables, X),
    )


@pytest.mark.parametrize("platform", ops.PLATFORMS)
@by_module
def test_forms_of_traces_the_form_of_one_platform_only(module, platform):
    variables = module.init(jax.random.key(0), X)
    function = gradients(module.apply)
    assert "platform_index" in str(jax.make_jaxpr(function)(variables, X))
    with ops.forms_of(platform):
        jaxpr = str(jax.make_jaxpr(function)(variables, X))
        program = stablehlo(function, variables, X, platforms=["cpu"])
        actual = jax.jit(function)(variables, X)
    assert "platform_index" not in jaxpr
    assert "cond[" not in jaxpr
    form = CPU_FORM if platform == "cpu" else DEFAULT_FORM
    assert form[module] in program
    assert_close(actual, jax.jit(gradients(LIBRARY[module].apply))(variables, X))


def test_forms_of_applies_to_a_function_that_was_jitted_and_called_before():
    variables = SAME.init(jax.random.key(0), X)
    apply = jax.jit(SAME.apply)
    expected = apply(variables, X)
    with ops.forms_of("cpu"):
        inside = str(jax.make_jaxpr(apply)(variables, X))
        np.testing.assert_array_equal(apply(variables, X), expected)
    after = str(jax.make_jaxpr(apply)(variables, X))
    assert ("platform_index" in inside, "platform_index" in after) == (False, True)


def test_forms_of_applies_to_a_whole_segmenter():
    module = make_segmenter("fcn8s")
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
    init = functools.partial(module.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    apply = functools.partial(module.apply, train=False)
    assert "platform_index" in str(jax.make_jaxpr(apply)(variables, image))
    with ops.forms_of("cpu"):
        jaxpr = str(jax.make_jaxpr(apply)(variables, image))
    assert "platform_index" not in jaxpr
    assert "cond[" not in jaxpr


def test_forms_of_an_unknown_platform_is_an_error():
    with pytest.raises(ValueError, match="'gpu' is not known; use one of cpu, cuda"):
        ops.forms_of("gpu")
