"""Rows: the name and axis order of one tensor in a family of weight files.

One row relates a Linen variable to the tensor's name and axis order in a file. Loading
and exporting use the same rows.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from tempseg_jax.models.preprocessing import Preprocessing

Shape = tuple[int, ...]


class Arrangement(NamedTuple):
    """Conversion between a tensor in a file and a Linen variable."""

    file_shape: Callable[[Shape], Shape]  # the variable's shape -> the file's
    from_file: Callable[[np.ndarray, Shape], np.ndarray]  # tensor, variable's shape
    to_file: Callable[[np.ndarray], np.ndarray]


SAME = Arrangement(
    file_shape=lambda shape: shape,
    from_file=lambda tensor, shape: tensor,
    to_file=lambda kernel: kernel,
)
"""Unchanged: vectors, and convolution kernels in Keras (height, width, in, out)."""

OIHW = Arrangement(
    file_shape=lambda shape: (shape[3], shape[2], shape[0], shape[1]),
    from_file=lambda tensor, shape: tensor.transpose(2, 3, 1, 0),
    to_file=lambda kernel: kernel.transpose(3, 2, 0, 1),
)
"""Convolution kernels in PyTorch: (out, in, height, width)."""

LINEAR_CHW = Arrangement(
    file_shape=lambda shape: (shape[3], math.prod(shape[:3])),
    from_file=lambda tensor, shape: tensor.reshape(
        shape[3], shape[2], shape[0], shape[1]
    ).transpose(2, 3, 1, 0),
    to_file=lambda kernel: kernel.transpose(3, 2, 0, 1).reshape(kernel.shape[3], -1),
)
"""PyTorch's Linear over a flattened map: (out, channel * row * column)."""

DENSE_HWC = Arrangement(
    file_shape=lambda shape: (math.prod(shape[:3]), shape[3]),
    from_file=lambda tensor, shape: tensor.reshape(shape),
    to_file=lambda kernel: kernel.reshape(-1, kernel.shape[3]),
)
"""Keras' Dense over a flattened map: (row * column * channel, out)."""


class Row(NamedTuple):
    """One tensor: its Linen variable, its name in the file, its axis order there."""

    linen: str  # path of the variable, e.g. "params/conv1/kernel"
    file: str  # name of the tensor, e.g. "conv1.weight"
    arrangement: Arrangement


class Layout(NamedTuple):
    """A family of weight files for one network, at its published width."""

    title: str
    segmenter: str  # the key of SEGMENTERS whose backbone these weights fill
    preprocessing: Preprocessing  # with which these weights were trained
    first_kernel: Shape  # published shape of the first row's variable
    rows: tuple[Row, ...]
    signature: frozenset[str]  # a file that has these tensors is of this layout
    backbone: str  # regular expression that matches every tensor of the backbone
    parts: tuple[str, ...] = ()  # keys of SEGMENTERS that use only some of the tensors
    scores: tuple[str, ...] = ()  # prefixes of the tensors of score layers


def keras_rows(linen: str, file: str, kernel: Arrangement) -> Iterator[Row]:
    """Yield the rows of a convolution or dense layer of Keras."""
    yield Row(f"params/{linen}/kernel", f"{file}/kernel", kernel)
    yield Row(f"params/{linen}/bias", f"{file}/bias", SAME)


def keras_norm_rows(linen: str, file: str) -> Iterator[Row]:
    """Yield the rows of a BatchNorm of Keras."""
    yield Row(f"params/{linen}/scale", f"{file}/gamma", SAME)
    yield Row(f"params/{linen}/bias", f"{file}/beta", SAME)
    yield Row(f"batch_stats/{linen}/mean", f"{file}/moving_mean", SAME)
    yield Row(f"batch_stats/{linen}/var", f"{file}/moving_variance", SAME)


def torch_rows(linen: str, file: str, kernel: Arrangement) -> Iterator[Row]:
    """Yield the rows of a convolution or linear layer of PyTorch."""
    yield Row(f"params/{linen}/kernel", f"{file}.weight", kernel)
    yield Row(f"params/{linen}/bias", f"{file}.bias", SAME)


def torch_norm_rows(linen: str, file: str) -> Iterator[Row]:
    """Yield the rows of a BatchNorm of PyTorch."""
    yield Row(f"params/{linen}/scale", f"{file}.weight", SAME)
    yield Row(f"params/{linen}/bias", f"{file}.bias", SAME)
    yield Row(f"batch_stats/{linen}/mean", f"{file}.running_mean", SAME)
    yield Row(f"batch_stats/{linen}/var", f"{file}.running_var", SAME)


def torch_conv_norm_rows(
    conv: str, norm: str, file_conv: str, file_norm: str
) -> Iterator[Row]:
    """Yield the rows of a convolution without a bias and of the BatchNorm after it."""
    yield Row(f"params/{conv}/kernel", f"{file_conv}.weight", OIHW)
    yield from torch_norm_rows(norm, file_norm)
