"""ReLU and bias, with gradients that need the output alone, and float32 sums."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tempseg_jax.models.ops.platform import by_platform


@jax.custom_jvp
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """max(x, 0), with a gradient that needs the output alone.

    The gradient of `nn.relu` tests the input, so that a convolution's output is kept
    beside its ReLU's, and the two are not computed in one kernel on a GPU. The test
    here is `!= 0`, because XLA turns `max(x, 0) > 0` back into `x > 0`.

    On a CPU it is no `max`, because XLA computes one with a constant again for each of
    its users, with all that is fused with it: the output of a residual block from the
    convolutions of all blocks of its stage. A choice between two arrays it computes
    once. NaN is not <= 0, and stays NaN. On a GPU, a `max` is part of a convolution's
    kernel.
    """
    return by_platform(
        x,
        cpu=lambda x: jnp.where(x <= 0, 0, x),
        default=lambda x: jnp.maximum(x, 0),
    )


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = relu(primals[0])
    return y, jnp.where(y != 0, tangents[0], 0)


@jax.custom_vjp
def add_bias(x: Float[Array, "*b c"], bias: Float[Array, "c"]) -> Float[Array, "*b c"]:
    """Add a float32 bias in the dtype of x; sum its gradient in float32.

    XLA would otherwise sum the gradient over all pixels of a batch in bfloat16 or
    float16.
    """
    return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def _add_bias_forward(x: Array, bias: Array) -> tuple[Array, Array]:
    return add_bias(x, bias), bias


def _add_bias_backward(bias: Array, g: Array) -> tuple[Array, Array]:
    axes = tuple(range(g.ndim - 1))
    return g, jnp.sum(g, axes, dtype=bias.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)
