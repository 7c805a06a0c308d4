"""Shapes of segmenters' variables and of the tensors in weight files."""

import functools

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from tests.support import make_segmenter


@functools.cache
def variable_shapes(name, *, width=1.0):
    """Return a segmenter's variables as shapes, without initializing them."""
    module = make_segmenter(name, num_classes=3, width=width)
    image = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    return jax.eval_shape(
        lambda k: module.init(k, image, train=False), jax.random.key(0)
    )


def file_shapes(layout):
    flat = flatten_dict(variable_shapes(layout.segmenter), sep="/")
    return {r.file: r.arrangement.file_shape(flat[r.linen].shape) for r in layout.rows}
