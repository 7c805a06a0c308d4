"""Multiplications and additions of a function, counted in its own program.

XLA's `cost_analysis` answers on a CPU alone, and leaves out what falls on padding.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jaxtyping import PyTree


def count_flops(function: Callable, *args: PyTree) -> int:
    """Return 2 x the products of convolutions and matrix products.

    Args:
        function: traced, not run.
        *args: its arguments, or their shapes.
    """
    return 2 * _products(jax.make_jaxpr(function)(*args).jaxpr)


def _products(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    parameters = equation.params
    match equation.primitive.name:
        case "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            out_channels = kernel[parameters["dimension_numbers"].rhs_spec[0]]
            return equation.outvars[0].aval.size * math.prod(kernel) // out_channels
        case "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left = equation.invars[0].aval.shape
            return equation.outvars[0].aval.size * math.prod(
                left[axis] for axis in contracted
            )
        case "scan":
            return parameters["length"] * _products(parameters["jaxpr"].jaxpr)
    return sum(map(_products, _inner(parameters)))


def _inner(parameters: dict[str, Any]) -> Iterator[Any]:
    """Yield the programs that an equation calls, such as `jit` and `checkpoint`."""
    for value in parameters.values():
        if hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr


def count_parameters(params: PyTree) -> int:
    """Return the number of parameters in a tree of arrays or of their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
