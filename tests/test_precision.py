import functools

import jax
import jax.numpy as jnp
import pytest

from tempseg_jax import precision, steps
from tempseg_jax.models import DCGANDiscriminator
from tests.support import make_hyper, make_objective, make_segmenter, make_state

PRECISIONS = ("float32", "bfloat16", "float16")


def test_only_float16_needs_a_loss_scale():
    assert precision.loss_scale("float32") is None
    assert precision.loss_scale("bfloat16") is None
    assert precision.loss_scale("float16").scale == 2**15
    assert set(precision.COMPUTE_DTYPES) == set(PRECISIONS)


def step_and_arguments(name, compute_precision):
    """Return the training step of narrow networks, and the shapes of its arguments."""
    dtype = precision.COMPUTE_DTYPES[compute_precision]
    segmenter = make_segmenter(name, dtype=dtype)
    discriminator = DCGANDiscriminator(dtype)

    def initial_state():
        scale = 2.0**15 if compute_precision == "float16" else None
        return make_state(
            segmenter, discriminator, size=32, num_classes=5, loss_scale=scale
        )

    step = functools.partial(
        steps.train_step,
        objective=make_objective(segmenter, discriminator),
    )
    batch = {
        "image": jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((2, 32, 32), jnp.uint8),
    }
    hyper = make_hyper(
        learning_rate_d=1e-07,
        temperature_seg=0.5,
        temperature_adv=0.5,
        alpha=0.05,
    )
    return step, (jax.eval_shape(initial_state), batch, hyper)


@pytest.mark.parametrize("name", ["fcn8s", "resnet50"])
@pytest.mark.parametrize("compute_precision", PRECISIONS)
def test_parameters_optimizers_statistics_and_losses_stay_float32(
    name, compute_precision
):
    step, arguments = step_and_arguments(name, compute_precision)
    before = arguments[0]
    after, metrics = jax.eval_shape(step, *arguments)
    dtypes = {x.dtype for x in jax.tree.leaves((after, metrics))}
    assert dtypes <= {jnp.dtype("float32"), jnp.dtype("int32")}
    # The result of a step is the argument of the next one; if the shapes or dtypes
    # differed, the second step would be compiled again.
    same = jax.tree.map(
        lambda a, b: a.shape == b.shape and a.dtype == b.dtype, before, after
    )
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("compute_precision", PRECISIONS)
def test_convolutions_compute_in_the_requested_precision(compute_precision):
    step, arguments = step_and_arguments("fcn8s", compute_precision)
    dtypes = convolution_dtypes(jax.make_jaxpr(step)(*arguments).jaxpr)
    assert dtypes == {jnp.dtype(precision.COMPUTE_DTYPES[compute_precision])}


def convolution_dtypes(jaxpr):
    """Return the input dtypes of all convolutions and matrix products of a program."""
    dtypes = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            dtypes |= {x.aval.dtype for x in equation.invars}
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if hasattr(inner, "eqns"):
                dtypes |= convolution_dtypes(inner)
    return dtypes
