"""Layouts: the tensor names and axis orders of each family of weight files.

One row relates a Linen variable to the tensor's name and axis order in a file. Loading
and exporting use the same rows.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION, Preprocessing
from tempseg_jax.models.resnet import STAGES
from tempseg_jax.models.vgg import BLOCKS

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


def _keras(linen: str, file: str, kernel: Arrangement) -> Iterator[Row]:
    yield Row(f"params/{linen}/kernel", f"{file}/kernel", kernel)
    yield Row(f"params/{linen}/bias", f"{file}/bias", SAME)


def _keras_norm(linen: str, file: str) -> Iterator[Row]:
    yield Row(f"params/{linen}/scale", f"{file}/gamma", SAME)
    yield Row(f"params/{linen}/bias", f"{file}/beta", SAME)
    yield Row(f"batch_stats/{linen}/mean", f"{file}/moving_mean", SAME)
    yield Row(f"batch_stats/{linen}/var", f"{file}/moving_variance", SAME)


def _torch(linen: str, file: str, kernel: Arrangement) -> Iterator[Row]:
    yield Row(f"params/{linen}/kernel", f"{file}.weight", kernel)
    yield Row(f"params/{linen}/bias", f"{file}.bias", SAME)


def _torch_norm(linen: str, file: str) -> Iterator[Row]:
    yield Row(f"params/{linen}/scale", f"{file}.weight", SAME)
    yield Row(f"params/{linen}/bias", f"{file}.bias", SAME)
    yield Row(f"batch_stats/{linen}/mean", f"{file}.running_mean", SAME)
    yield Row(f"batch_stats/{linen}/var", f"{file}.running_var", SAME)


def _resnet_blocks() -> Iterator[tuple[int, int, bool]]:
    """Yield (stage from 2, block from 1, whether its shortcut is a convolution)."""
    for stage, (blocks, _) in enumerate(STAGES, start=2):
        for block in range(1, blocks + 1):
            yield stage, block, block == 1


def _keras_resnet50() -> Iterator[Row]:
    yield from _keras("conv1", "conv1_conv", SAME)
    yield from _keras_norm("bn1", "conv1_bn")
    for stage, block, projects in _resnet_blocks():
        for i in range(0 if projects else 1, 4):
            linen, file = f"stage{stage}_block{block}", f"conv{stage}_block{block}_{i}"
            yield from _keras(f"{linen}/conv{i}", f"{file}_conv", SAME)
            yield from _keras_norm(f"{linen}/bn{i}", f"{file}_bn")


def _torchvision_resnet50() -> Iterator[Row]:
    yield Row("params/conv1/kernel", "conv1.weight", OIHW)
    yield from _torch_norm("bn1", "bn1")
    for stage, block, projects in _resnet_blocks():
        for i in range(0 if projects else 1, 4):
            linen, file = f"stage{stage}_block{block}", f"layer{stage - 1}.{block - 1}"
            conv = f"{file}.conv{i}" if i else f"{file}.downsample.0"
            norm = f"{file}.bn{i}" if i else f"{file}.downsample.1"
            yield Row(f"params/{linen}/conv{i}/kernel", f"{conv}.weight", OIHW)
            yield from _torch_norm(f"{linen}/bn{i}", norm)


def _keras_vgg16() -> Iterator[Row]:
    for block, (convolutions, _) in enumerate(BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            name = f"backbone/block{block}/conv{i}"
            yield from _keras(name, f"block{block}_conv{i}", SAME)
    yield from _keras("backbone/fc6", "fc1", DENSE_HWC)
    yield from _keras("backbone/fc7", "fc2", DENSE_HWC)


def _torch_vgg16(fc6: str, fc7: str, kernel: Arrangement) -> Iterator[Row]:
    index = 0  # in nn.Sequential, which also counts each ReLU and each pooling layer
    for block, (convolutions, _) in enumerate(BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            yield from _torch(
                f"backbone/block{block}/conv{i}", f"features.{index}", OIHW
            )
            index += 2
        index += 1
    yield from _torch("backbone/fc6", fc6, kernel)
    yield from _torch("backbone/fc7", fc7, kernel)


KERAS_RESNET50 = Layout(
    "Keras ResNet-50",
    "resnet50",
    CAFFE,
    (7, 7, 3, 64),
    tuple(_keras_resnet50()),
    frozenset({"conv1_conv/kernel", "conv2_block1_1_conv/bias"}),
    r"conv\d_block",
    parts=("resnet50_c4",),
)
KERAS_VGG16 = Layout(
    "Keras VGG-16",
    "fcn8s",
    CAFFE,
    (3, 3, 3, 64),
    tuple(_keras_vgg16()),
    frozenset({"block1_conv1/kernel", "block5_conv3/kernel"}),
    r"block\d_conv",
)
TORCHVISION_RESNET50 = Layout(
    "torchvision ResNet-50",
    "resnet50_v15",
    TORCHVISION,
    (7, 7, 3, 64),
    tuple(_torchvision_resnet50()),
    frozenset({"conv1.weight", "layer1.0.conv3.weight", "layer4.2.bn3.running_var"}),
    r"layer\d\..*(?<!num_batches_tracked)$",
)
TORCHVISION_VGG16 = Layout(
    "torchvision VGG-16",
    "fcn8s",
    TORCHVISION,
    (3, 3, 3, 64),
    tuple(_torch_vgg16("classifier.0", "classifier.3", LINEAR_CHW)),
    frozenset({"features.0.weight", "classifier.0.weight"}),
    r"features\.",
)
TIMM_VGG16 = Layout(
    "timm VGG-16",
    "fcn8s",
    TORCHVISION,
    (3, 3, 3, 64),
    tuple(_torch_vgg16("pre_logits.fc1", "pre_logits.fc2", OIHW)),
    frozenset({"features.0.weight", "pre_logits.fc1.weight"}),
    r"features\.",
)

LAYOUTS = (
    KERAS_RESNET50,
    KERAS_VGG16,
    TORCHVISION_RESNET50,
    TORCHVISION_VGG16,
    TIMM_VGG16,
)

PREPROCESSINGS = {"caffe": CAFFE, "torchvision": TORCHVISION}
"""Preprocessings by their names in safetensors metadata ("preprocessing")."""


def recognize(names: frozenset[str]) -> Layout | None:
    """Return the layout whose signature is among a file's tensor names, else None."""
    return next((layout for layout in LAYOUTS if layout.signature <= names), None)
