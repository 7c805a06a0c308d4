"""Shapes of segmenters' variables and of the tensors in weight files."""

import functools

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from tests.support import make_segmenter


@functools.cache
def variable_shapes(name, *, width=1.0, **head):
    """Return a segmenter's variables as shapes, without initializing them."""
    module = make_segmenter(name, num_classes=3, width=width, **head)
    image = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    return jax.eval_shape(
        lambda k: module.init(k, image, train=False), jax.random.key(0)
    )


def head_of(layout):
    """Return the arguments of `make_segmenter` for the head of a file."""
    linen = {row.linen for row in layout.rows}
    if "params/head/gate/kernel" in linen:
        return {"head": "lraspp"}
    if "params/head/conv1/kernel" in linen:
        return {"head": "fcn", "auxiliary": True}
    if "params/head/conv_1x1/kernel" in linen:
        return {"head": "aspp", "auxiliary": True, "output_stride": 8}
    return {}


def file_shapes(layout):
    flat = flatten_dict(variable_shapes(layout.segmenter, **head_of(layout)), sep="/")
    return {r.file: r.arrangement.file_shape(flat[r.linen].shape) for r in layout.rows}
