"""ImageNet weights, each bound to the preprocessing it was trained under."""

import difflib
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION, Preprocessing
from tempseg_jax.models.weights.files import Index, read_index, read_tensors
from tempseg_jax.models.weights.layouts import (
    KERAS_RESNET50,
    KERAS_VGG16,
    LAYOUTS,
    PREPROCESSINGS,
    TIMM_VGG16,
    TORCHVISION_RESNET50,
    Layout,
    recognize,
)
from tempseg_jax.models.weights.report import LoadReport, describe
from tempseg_jax.models.weights.sources import HubFile, KerasFile, LocalFile

Variables = dict[str, Any]  # of Linen: {"params": ..., "batch_stats": ...}, nested


class Source(NamedTuple):
    """Where a file comes from, what it calls its tensors, what input it expects."""

    location: HubFile | KerasFile | LocalFile
    layout: Layout
    preprocessing: Preprocessing


_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"

PRETRAINED: dict[str, Source] = {
    "vgg16.tv_in1k": Source(HubFile("timm/vgg16.tv_in1k"), TIMM_VGG16, TORCHVISION),
    "resnet50.tv_in1k": Source(
        HubFile("timm/resnet50.tv_in1k"), TORCHVISION_RESNET50, TORCHVISION
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
    """Return what the input of a network with these weights must look like.

    Nothing is downloaded, and of a local file only the tensors' names are read.

    Args:
        source: a key of `PRETRAINED`, a path to a .safetensors or .h5 file, or nothing
            for a network from scratch.

    Raises:
        ValueError: neither a key nor a file that is recognized.
    """
    return _resolve(source).preprocessing if source else TORCHVISION


def load_pretrained(
    variables: Variables,
    source: str,
    *,
    segmenter_name: str,
    missing: tuple[str, ...],
) -> tuple[Variables, LoadReport]:
    """Put a file's tensors, as float32, in the place of freshly initialized ones.

    Args:
        variables: of the segmenter, as `init` gives them; not modified.
        source: a key of `PRETRAINED` or a path to a .safetensors or .h5 file.
        segmenter_name: the key of `SEGMENTERS` that the variables belong to.
        missing: prefixes of layers, in the file's own names, that the file may lack;
            what is absent keeps its initial value.

    Raises:
        ValueError: the source is unknown, belongs to another architecture or cannot be
            had; a tensor is missing, of another shape, unexpected or not finite.
    """
    location, layout, preprocessing = _resolve(source)
    fresh = flatten_dict(variables, sep="/")
    _check_network(fresh, source, layout, segmenter_name)
    _check_prefixes(missing, layout)
    path = location.fetch()
    index = read_index(path)
    rows = {row.file: row for row in layout.rows if row.file in index.shapes}
    unused = tuple(name for name in index.shapes if name not in rows)
    _check_file(path, index, layout, missing)
    _check_shapes(path, index, fresh, layout)
    loaded = {}
    for name, tensor in read_tensors(path, rows):
        row = rows[name]
        shape = fresh[row.linen].shape
        loaded[row.linen] = np.ascontiguousarray(
            row.arrangement.from_file(tensor, shape)
        )
    report = LoadReport(
        origin=f"{path} ({layout.title}; {describe(preprocessing)})",
        loaded=tuple(name for name in fresh if name in loaded),
        fresh=tuple(name for name in fresh if name not in loaded),
        unused=unused,
    )
    return unflatten_dict(fresh | loaded, sep="/"), report


def _resolve(source: str) -> Source:
    if source in PRETRAINED:
        return PRETRAINED[source]
    path = Path(source).expanduser()
    if not path.is_file():
        raise ValueError(_unknown(source))
    index = read_index(path)
    layout = recognize(frozenset(index.shapes))
    if layout is None:
        some = ", ".join(sorted(index.shapes)[:4]) or "none at all"
        known = "; ".join(layout.title for layout in LAYOUTS)
        raise ValueError(
            f"{path}: the tensors' names ({some}, ...) are of no known layout ({known})"
        )
    return Source(LocalFile(path), layout, _declared(path, index, layout))


def _unknown(source: str) -> str:
    close = difflib.get_close_matches(source, PRETRAINED, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(PRETRAINED)}"
    return (
        f"model.pretrained={source!r} is neither a known source ({hint}) nor "
        "a file here"
    )


def _declared(path: Path, index: Index, layout: Layout) -> Preprocessing:
    """Return what the file says of itself, or else what its family is known for."""
    name = index.metadata.get("preprocessing")
    if name is None:
        return layout.preprocessing
    if name not in PREPROCESSINGS:
        raise ValueError(
            f"{path} says preprocessing={name!r}; known are {', '.join(PREPROCESSINGS)}"
        )
    return PREPROCESSINGS[name]


def _check_network(
    fresh: dict[str, Any], source: str, layout: Layout, segmenter_name: str
) -> None:
    """Refuse, before any download, a network that the weights cannot fit."""
    if layout.segmenter != segmenter_name:
        raise ValueError(
            f"model.pretrained={source!r} is {layout.title}, which fits the segmenter "
            f"{layout.segmenter!r}, not {segmenter_name!r}: change one of them"
        )
    first = fresh[layout.rows[0].linen].shape
    if first[-1] != 64:
        raise ValueError(
            f"model.pretrained={source!r} fits only the full width, 64 channels in the "
            f"first convolution; this network has {first[-1]}: set model.width=1 or "
            "model.pretrained=''"
        )


def _check_prefixes(missing: tuple[str, ...], layout: Layout) -> None:
    for prefix in missing:
        if not any(row.file.startswith(prefix) for row in layout.rows):
            raise ValueError(
                f"model.pretrained_missing has {prefix!r}, with which no tensor of "
                f"{layout.title} begins (the first is {layout.rows[0].file!r})"
            )


def _check_file(
    path: Path, index: Index, layout: Layout, missing: tuple[str, ...]
) -> None:
    """Refuse a file that lacks a tensor, or has more layers than the network."""
    absent = [row.file for row in layout.rows if row.file not in index.shapes]
    absent = [name for name in absent if not name.startswith(missing)]
    if absent:
        raise ValueError(
            f"{path} lacks {_list(absent)} of {layout.title}; if that is intended, "
            "name their beginnings in model.pretrained_missing"
        )
    known = {row.file for row in layout.rows}
    extra = [n for n in index.shapes if n not in known and re.match(layout.backbone, n)]
    if extra:
        raise ValueError(
            f"{path} has {_list(extra)}, which {layout.title} has not: these are the "
            "weights of another network"
        )


def _check_shapes(
    path: Path, index: Index, fresh: dict[str, Any], layout: Layout
) -> None:
    for row in layout.rows:
        expected = row.arrangement.file_shape(fresh[row.linen].shape)
        found = index.shapes.get(row.file, expected)
        if found != expected:
            raise ValueError(
                f"{path}: {row.file} has the shape {found}, not {expected} as in "
                f"{layout.title}: these are the weights of another network"
            )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - 12} more tensors" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more
