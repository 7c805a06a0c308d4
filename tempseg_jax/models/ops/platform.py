"""The choice between forms of an operation by the platform it is compiled for.

Both forms are traced, by `jax.lax.platform_dependent`; the form is chosen when the
program is lowered for a platform, so an export or an ahead-of-time compilation gets the
form of its target and not that of the machine it was made on.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import jax
from jaxtyping import Array

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

# A context variable that is part of the keys of JAX's tracing caches.
_traced_platform = jax.make_user_context(default_value=None)


def forms_of(platform: str) -> AbstractContextManager:
    """Trace only one platform's form of each operation, within a `with` block.

    The jaxpr then contains no `platform_index` and no `cond`, for converters that do
    not know them. The block must surround the trace (the call of `jax.make_jaxpr`, of
    `jax.export.export(...)(...)`, or the first call of a jitted function) and that of
    the gradient (the call of the function that `jax.vjp` returns); it changes nothing
    in a jaxpr that has already been traced. The program is then correct on every
    platform, but fastest on this one.

    Args:
        platform: One of `PLATFORMS`.

    Raises:
        ValueError: If the platform is not one of `PLATFORMS`.
    """
    if platform not in PLATFORMS:
        raise ValueError(
            f"platform={platform!r} is not known; use one of {', '.join(PLATFORMS)}"
        )
    return _traced_platform(platform)


def by_platform(*args: Array, cpu: Callable, default: Callable) -> Array:
    """Apply `cpu` on a CPU and `default` on every other platform."""
    if cpu is default:
        return cpu(*args)
    match _traced_platform.value:
        case None:
            return jax.lax.platform_dependent(*args, cpu=cpu, default=default)
        case "cpu":
            return cpu(*args)
    return default(*args)
