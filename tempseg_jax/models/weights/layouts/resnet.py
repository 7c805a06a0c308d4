"""Layouts of the files of ResNets that classify."""

from collections.abc import Iterator

from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION
from tempseg_jax.models.resnet import RESNET50, RESNET101
from tempseg_jax.models.weights.layouts.rows import (
    SAME,
    Layout,
    Row,
    keras_norm_rows,
    keras_rows,
    torch_conv_norm_rows,
)


def _blocks(counts: tuple[int, ...]) -> Iterator[tuple[int, int, bool]]:
    """Yield (stage from 2, block from 1, whether its shortcut is a convolution)."""
    for stage, blocks in enumerate(counts, start=2):
        for block in range(1, blocks + 1):
            yield stage, block, block == 1


def _keras() -> Iterator[Row]:
    yield from keras_rows("conv1", "conv1_conv", SAME)
    yield from keras_norm_rows("bn1", "conv1_bn")
    for stage, block, projects in _blocks(RESNET50):
        for i in range(0 if projects else 1, 4):
            linen, file = f"stage{stage}_block{block}", f"conv{stage}_block{block}_{i}"
            yield from keras_rows(f"{linen}/conv{i}", f"{file}_conv", SAME)
            yield from keras_norm_rows(f"{linen}/bn{i}", f"{file}_bn")


def torchvision_rows(counts: tuple[int, ...], prefix: str = "") -> Iterator[Row]:
    """Yield the rows of a ResNet with these numbers of blocks.

    Args:
        counts: RESNET50 or RESNET101.
        prefix: What the names in the file start with.
    """
    yield from torch_conv_norm_rows("conv1", "bn1", f"{prefix}conv1", f"{prefix}bn1")
    for stage, block, projects in _blocks(counts):
        for i in range(0 if projects else 1, 4):
            linen = f"stage{stage}_block{block}"
            file = f"{prefix}layer{stage - 1}.{block - 1}"
            conv = f"{file}.conv{i}" if i else f"{file}.downsample.0"
            norm = f"{file}.bn{i}" if i else f"{file}.downsample.1"
            yield from torch_conv_norm_rows(
                f"{linen}/conv{i}", f"{linen}/bn{i}", conv, norm
            )


def timm_d_rows(counts: tuple[int, ...]) -> Iterator[Row]:
    """Yield the rows of timm's ResNet-D with these numbers of blocks."""
    yield from torch_conv_norm_rows("conv1a", "bn1a", "conv1.0", "conv1.1")
    yield from torch_conv_norm_rows("conv1b", "bn1b", "conv1.3", "conv1.4")
    yield from torch_conv_norm_rows("conv1", "bn1", "conv1.6", "bn1")
    for row in list(torchvision_rows(counts))[5:]:  # after conv1 and bn1
        before, shortcut, after = row.file.partition(".downsample.")
        if shortcut:  # in nn.Sequential, after the pooling
            number, _, name = after.partition(".")
            row = row._replace(file=f"{before}{shortcut}{int(number) + 1}.{name}")
        yield row


KERAS_RESNET50 = Layout(
    "Keras ResNet-50",
    "resnet50",
    CAFFE,
    (7, 7, 3, 64),
    tuple(_keras()),
    frozenset({"conv1_conv/kernel", "conv2_block1_1_conv/bias"}),
    r"conv\d_block",
    parts=("resnet50_c4",),
)
TORCHVISION_RESNET50 = Layout(
    "torchvision ResNet-50",
    "resnet50_v15",
    TORCHVISION,
    (7, 7, 3, 64),
    tuple(torchvision_rows(RESNET50)),
    frozenset({"conv1.weight", "layer1.0.conv3.weight", "layer4.2.bn3.running_var"}),
    r"layer\d\..*(?<!num_batches_tracked)$",
)
TORCHVISION_RESNET101 = Layout(
    "torchvision ResNet-101",
    "resnet101",
    TORCHVISION,
    (7, 7, 3, 64),
    tuple(torchvision_rows(RESNET101)),
    TORCHVISION_RESNET50.signature | {"layer3.22.conv1.weight"},
    r"layer\d\..*(?<!num_batches_tracked)$",
)
TIMM_RESNET50_D = Layout(
    "timm resnet50d",
    "resnet50_d",
    TORCHVISION,
    (3, 3, 3, 32),
    tuple(timm_d_rows(RESNET50)),
    frozenset({"conv1.6.weight", "layer4.0.downsample.2.running_var"}),
    r"layer\d\..*(?<!num_batches_tracked)$",
)
