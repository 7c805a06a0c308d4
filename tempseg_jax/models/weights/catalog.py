"""Weight files by name or path: where each is, its layout and its preprocessing."""

import difflib
from pathlib import Path
from typing import NamedTuple

from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION, Preprocessing
from tempseg_jax.models.weights.files import Index, read_index
from tempseg_jax.models.weights.layouts import (
    KERAS_RESNET50,
    KERAS_VGG16,
    LAYOUTS,
    PREPROCESSINGS,
    TIMM_MOBILENET_V3,
    TIMM_RESNET50_D,
    TIMM_VGG16,
    TORCHVISION_RESNET50,
    TORCHVISION_RESNET101,
    Layout,
    recognize,
)
from tempseg_jax.models.weights.sources import HubFile, KerasFile, LocalFile


class Source(NamedTuple):
    """A weight file: its location, layout and preprocessing."""

    location: HubFile | KerasFile | LocalFile
    layout: Layout
    preprocessing: Preprocessing


_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"

PRETRAINED: dict[str, Source] = {
    "vgg16.tv_in1k": Source(HubFile("timm/vgg16.tv_in1k"), TIMM_VGG16, TORCHVISION),
    "resnet50.tv_in1k": Source(
        HubFile("timm/resnet50.tv_in1k"), TORCHVISION_RESNET50, TORCHVISION
    ),
    "resnet101.tv_in1k": Source(
        HubFile("timm/resnet101.tv_in1k"), TORCHVISION_RESNET101, TORCHVISION
    ),
    "resnet50d.ra2_in1k": Source(
        HubFile("timm/resnet50d.ra2_in1k"), TIMM_RESNET50_D, TORCHVISION
    ),
    "mobilenetv3_large_100.ra_in1k": Source(
        HubFile("timm/mobilenetv3_large_100.ra_in1k"), TIMM_MOBILENET_V3, TORCHVISION
    ),
    "keras_vgg16": Source(
        KerasFile(
            f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            md5="64373286793e3c8b2b4e3219cbf3544b",
        ),
        KERAS_VGG16,
        CAFFE,
    ),
    "keras_resnet50": Source(
        KerasFile(
            f"{_KERAS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            md5="4d473c1dd8becc155b73f8504c6f6626",
        ),
        KERAS_RESNET50,
        CAFFE,
    ),
}


def preprocessing_of(source: str | None) -> Preprocessing:
    """Return the preprocessing that a network with these weights needs.

    Nothing is downloaded. Only the names, shapes and metadata of a local file are read.

    Args:
        source: A key of `PRETRAINED`, a path to a .safetensors or .h5 file, or "" or
            None for a network trained from scratch.

    Raises:
        ValueError: If the source is neither a key nor a file with a known layout.
    """
    return resolve(source).preprocessing if source else TORCHVISION


def resolve(source: str) -> Source:
    """Return the source of this name, or of the file at this path.

    Only the names, shapes and metadata of a local file are read.

    Raises:
        ValueError: If it is neither, or the file has no known layout.
    """
    if source in PRETRAINED:
        return PRETRAINED[source]
    path = Path(source).expanduser()
    if not path.is_file():
        raise ValueError(_unknown_source_message(source))
    index = read_index(path)
    layout = recognize(frozenset(index.shapes))
    if layout is None:
        first = ", ".join(sorted(index.shapes)[:4]) or "no tensors"
        known = "; ".join(layout.title for layout in LAYOUTS)
        raise ValueError(
            f"{path}: the tensor names ({first}, ...) match no known layout; use a "
            f"file of one of these: {known}"
        )
    return Source(LocalFile(path), layout, _preprocessing_of_file(path, index, layout))


def _unknown_source_message(source: str) -> str:
    close = difflib.get_close_matches(source, PRETRAINED, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(PRETRAINED)}"
    return (
        f"model.pretrained={source!r} is neither a known source ({hint}) nor the path "
        "of a file or of a run"
    )


def _preprocessing_of_file(path: Path, index: Index, layout: Layout) -> Preprocessing:
    """Return the preprocessing in the file's metadata, else that of its layout."""
    name = index.metadata.get("preprocessing")
    if name is None:
        return layout.preprocessing
    if name not in PREPROCESSINGS:
        raise ValueError(
            f"{path}: the metadata has preprocessing={name!r}, which is not known; use "
            f"one of {', '.join(PREPROCESSINGS)}"
        )
    return PREPROCESSINGS[name]
