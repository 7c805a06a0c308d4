"""Convolutions, pooling and activations, each in the form that is fastest.

Some have one form for CPUs and another for all other platforms, see `platform`. Custom
gradients are written so that a GPU reads and writes few arrays.
"""

from tempseg_jax.models.ops.convolution import SameConv, transposed_conv
from tempseg_jax.models.ops.depthwise import DepthwiseConv
from tempseg_jax.models.ops.elementwise import add_bias, relu
from tempseg_jax.models.ops.halving import HalvingConv
from tempseg_jax.models.ops.platform import PLATFORMS, by_platform, forms_of
from tempseg_jax.models.ops.pooling import (
    average_pool_2x2,
    max_pool_2x2,
    max_pool_3x3,
)

__all__ = [
    "PLATFORMS",
    "DepthwiseConv",
    "HalvingConv",
    "SameConv",
    "add_bias",
    "average_pool_2x2",
    "by_platform",
    "forms_of",
    "max_pool_2x2",
    "max_pool_3x3",
    "relu",
    "transposed_conv",
]
