"""Mixed precision: the dtype of convolutions; parameters and losses are float32."""

import jax.numpy as jnp
from flax.training.dynamic_scale import DynamicScale

COMPUTE_DTYPES = {
    "float32": jnp.float32,
    "bfloat16": jnp.bfloat16,
    "float16": jnp.float16,
}


def loss_scale(precision: str) -> DynamicScale | None:
    """Return a new dynamic loss scale for float16; None for the other precisions."""
    if precision != "float16":
        return None
    return DynamicScale(fin_steps=jnp.int32(0), scale=jnp.float32(2**15))
