"""Count parameters and floating-point operations.

Operations are counted in the jaxpr: XLA's `cost_analysis` is available on a CPU only,
and leaves out the products with zero padding.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jaxtyping import PyTree


def count_parameters(tree: PyTree) -> int:
    """Return the number of scalars in a tree of arrays or of their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def count_flops(function: Callable, *args: PyTree) -> int:
    """Return the FLOPs of convolutions and matrix products: two per multiply-add.

    Where `jax.lax.platform_dependent` chooses by platform, the default form, which runs
    on GPUs and TPUs, is counted. Of any other conditional the branch with most FLOPs is
    counted, and the body of a while loop once.

    Args:
        function: The function; it is traced but not run.
        *args: Its arguments, or their shapes (`jax.ShapeDtypeStruct`).
    """
    return 2 * _count_products(jax.make_jaxpr(function)(*args).jaxpr)


def _count_products(jaxpr: Any) -> int:
    return sum(_products_of_equation(equation) for equation in jaxpr.eqns)


def _products_of_equation(equation: Any) -> int:
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
            return parameters["length"] * _count_products(parameters["jaxpr"].jaxpr)
        case "cond":
            branches = [_count_products(x.jaxpr) for x in parameters["branches"]]
            by_platform = parameters.get("branches_platforms")
            return branches[-1] if by_platform else max(branches)
    return sum(map(_count_products, _inner_jaxprs(parameters)))


def _inner_jaxprs(parameters: dict[str, Any]) -> Iterator[Any]:
    """Yield the jaxprs that an equation calls, such as those of `jit` and `remat`."""
    for value in parameters.values():
        if hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr
