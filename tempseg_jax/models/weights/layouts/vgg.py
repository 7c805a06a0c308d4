"""Layouts of VGG-16's files."""

from collections.abc import Iterator

from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION
from tempseg_jax.models.vgg import BLOCKS
from tempseg_jax.models.weights.layouts.rows import (
    DENSE_HWC,
    LINEAR_CHW,
    OIHW,
    SAME,
    Arrangement,
    Layout,
    Row,
    keras_rows,
    torch_rows,
)


def _keras() -> Iterator[Row]:
    for block, (convolutions, _) in enumerate(BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            name = f"backbone/block{block}/conv{i}"
            yield from keras_rows(name, f"block{block}_conv{i}", SAME)
    yield from keras_rows("backbone/fc6", "fc1", DENSE_HWC)
    yield from keras_rows("backbone/fc7", "fc2", DENSE_HWC)


def _torch(fc6: str, fc7: str, kernel: Arrangement) -> Iterator[Row]:
    index = 0  # in nn.Sequential, which also counts each ReLU and each pooling layer
    for block, (convolutions, _) in enumerate(BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            yield from torch_rows(
                f"backbone/block{block}/conv{i}", f"features.{index}", OIHW
            )
            index += 2
        index += 1
    yield from torch_rows("backbone/fc6", fc6, kernel)
    yield from torch_rows("backbone/fc7", fc7, kernel)


KERAS_VGG16 = Layout(
    "Keras VGG-16",
    "fcn8s",
    CAFFE,
    (3, 3, 3, 64),
    tuple(_keras()),
    frozenset({"block1_conv1/kernel", "block5_conv3/kernel"}),
    r"block\d_conv",
)
TORCHVISION_VGG16 = Layout(
    "torchvision VGG-16",
    "fcn8s",
    TORCHVISION,
    (3, 3, 3, 64),
    tuple(_torch("classifier.0", "classifier.3", LINEAR_CHW)),
    frozenset({"features.0.weight", "classifier.0.weight"}),
    r"features\.",
)
TIMM_VGG16 = Layout(
    "timm VGG-16",
    "fcn8s",
    TORCHVISION,
    (3, 3, 3, 64),
    tuple(_torch("pre_logits.fc1", "pre_logits.fc2", OIHW)),
    frozenset({"features.0.weight", "pre_logits.fc1.weight"}),
    r"features\.",
)
