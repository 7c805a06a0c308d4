"""Layouts of MobileNetV3-Large's files, of torchvision and timm."""

from collections.abc import Iterator

from tempseg_jax.models.mobilenet import LARGE
from tempseg_jax.models.preprocessing import TORCHVISION, TORCHVISION_MOBILENET
from tempseg_jax.models.weights.layouts.rows import (
    OIHW,
    Layout,
    Row,
    torch_conv_norm_rows,
    torch_rows,
)

TIMM_STAGES = (1, 2, 3, 4, 2, 3)
"""Blocks of each of timm's stages, which are split by channels, not by stride."""


def _conv(linen: str, conv: str, norm: str) -> Iterator[Row]:
    """Yield the rows of the convolution conv<linen> and its BatchNorm."""
    *folder, name = linen.rpartition("/")
    folder = "".join(folder)
    yield from torch_conv_norm_rows(
        f"{folder}conv{name}", f"{folder}bn{name}", conv, norm
    )


def _torchvision(prefix: str) -> Iterator[Row]:
    yield from _conv("_stem", f"{prefix}0.0", f"{prefix}0.1")
    for i, shape in enumerate(LARGE, start=1):
        layers = ["1", "2", "squeeze", "3"]  # in nn.Sequential
        if i == 1:  # the only block without an expansion
            layers.remove("1")
        if not shape.squeeze:
            layers.remove("squeeze")
        for j, layer in enumerate(layers):
            file = f"{prefix}{i}.block.{j}"
            if layer == "squeeze":
                for fc in ("fc1", "fc2"):
                    linen = f"block{i}/squeeze/{fc}"
                    yield from torch_rows(linen, f"{file}.{fc}", OIHW)
            else:
                yield from _conv(f"block{i}/{layer}", f"{file}.0", f"{file}.1")
    last = f"{prefix}{len(LARGE) + 1}"
    yield from _conv("_last", f"{last}.0", f"{last}.1")


def _timm() -> Iterator[Row]:
    yield from _conv("_stem", "conv_stem", "bn1")
    files = [f"blocks.{s}.{j}" for s, n in enumerate(TIMM_STAGES) for j in range(n)]
    for i, (file, shape) in enumerate(zip(files, LARGE, strict=True), start=1):
        names = ["conv_pw", "conv_dw", "conv_pwl"]
        if i == 1:
            names = ["conv_dw", "conv_pw"]
        for j, name in enumerate(names, start=1):
            layer = j + 3 - len(names)
            yield from _conv(f"block{i}/{layer}", f"{file}.{name}", f"{file}.bn{j}")
        if shape.squeeze:
            for fc, name in (("fc1", "conv_reduce"), ("fc2", "conv_expand")):
                linen = f"block{i}/squeeze/{fc}"
                yield from torch_rows(linen, f"{file}.se.{name}", OIHW)
    last = f"blocks.{len(TIMM_STAGES)}.0"
    yield from _conv("_last", f"{last}.conv", f"{last}.bn1")


def _lraspp() -> Iterator[Row]:
    yield from _torchvision("backbone.")
    yield from _conv("head/1", "classifier.cbr.0", "classifier.cbr.1")
    yield Row("params/head/gate/kernel", "classifier.scale.1.weight", OIHW)
    for name in ("low", "high"):
        yield from torch_rows(
            f"head/score_{name}", f"classifier.{name}_classifier", OIHW
        )


TORCHVISION_MOBILENET_V3 = Layout(
    "torchvision MobileNetV3-Large",
    "mobilenet_v3_large",
    TORCHVISION_MOBILENET,
    (3, 3, 3, 16),
    tuple(_torchvision("features.")),
    frozenset({"features.0.0.weight", "features.15.block.3.0.weight"}),
    r"features\..*(?<!num_batches_tracked)$",
)
TIMM_MOBILENET_V3 = Layout(
    "timm mobilenetv3_large_100",
    "mobilenet_v3_large",
    TORCHVISION,
    (3, 3, 3, 16),
    tuple(_timm()),
    frozenset({"conv_stem.weight", "blocks.5.2.conv_pwl.weight"}),
    r"blocks\..*(?<!num_batches_tracked)$",
)
LRASPP_MOBILENET_V3 = Layout(
    "torchvision lraspp_mobilenet_v3_large",
    "mobilenet_v3_large",
    TORCHVISION_MOBILENET,
    (3, 3, 3, 16),
    tuple(_lraspp()),
    frozenset({"backbone.0.0.weight", "classifier.low_classifier.weight"}),
    r"backbone\..*(?<!num_batches_tracked)$",
    scores=("classifier.low_classifier.", "classifier.high_classifier."),
)
