"""Layouts of torchvision's segmentation networks, backbone and head in one file."""

from collections.abc import Iterator

from tempseg_jax.models.preprocessing import TORCHVISION
from tempseg_jax.models.resnet import RESNET50, RESNET101
from tempseg_jax.models.weights.layouts.resnet import torchvision_rows
from tempseg_jax.models.weights.layouts.rows import (
    OIHW,
    Layout,
    Row,
    torch_conv_norm_rows,
    torch_rows,
)


def _fcn_head(linen: str, file: str) -> Iterator[Row]:
    yield from torch_conv_norm_rows(
        f"{linen}/conv1", f"{linen}/bn1", f"{file}.0", f"{file}.1"
    )
    yield from torch_rows(f"{linen}/score", f"{file}.4", OIHW)


def _aspp_head() -> Iterator[Row]:
    branches = ("1x1", "dilated1", "dilated2", "dilated3", "pooled")
    for i, name in enumerate(branches):
        first = int(name == "pooled")  # comes after the pooling
        yield from _aspp_conv(name, f"0.convs.{i}.{first}", f"0.convs.{i}.{first + 1}")
    yield from _aspp_conv("projection", "0.project.0", "0.project.1")
    yield from _aspp_conv("3x3", "1", "2")
    yield from torch_rows("head/score", "classifier.4", OIHW)


def _aspp_conv(linen: str, conv: str, norm: str) -> Iterator[Row]:
    yield from torch_conv_norm_rows(
        f"head/conv_{linen}",
        f"head/bn_{linen}",
        f"classifier.{conv}",
        f"classifier.{norm}",
    )


def _layout(
    title: str, segmenter: str, counts: tuple[int, ...], head: tuple[Row, ...]
) -> Layout:
    own = {"backbone.layer3.22.conv1.weight"} if counts == RESNET101 else set()
    return Layout(
        title,
        segmenter,
        TORCHVISION,
        (7, 7, 3, 64),
        (
            *torchvision_rows(counts, "backbone."),
            *head,
            *_fcn_head("auxiliary", "aux_classifier"),
        ),
        frozenset({"backbone.conv1.weight", head[0].file, "classifier.4.weight"} | own),
        r"backbone\.layer\d\..*(?<!num_batches_tracked)$",
        scores=("classifier.4.", "aux_classifier.4."),
    )


_FCN, _ASPP = tuple(_fcn_head("head", "classifier")), tuple(_aspp_head())

FCN_RESNET101 = _layout("torchvision fcn_resnet101", "resnet101", RESNET101, _FCN)
FCN_RESNET50 = _layout("torchvision fcn_resnet50", "resnet50_v15", RESNET50, _FCN)
DEEPLABV3_RESNET101 = _layout(
    "torchvision deeplabv3_resnet101", "resnet101", RESNET101, _ASPP
)
DEEPLABV3_RESNET50 = _layout(
    "torchvision deeplabv3_resnet50", "resnet50_v15", RESNET50, _ASPP
)
