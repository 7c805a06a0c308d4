"""Export a segmenter's weights for PyTorch, with torchvision's tensor names."""

from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from tempseg_jax.io import atomic
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.models.weights.layouts import (
    DEEPLABV3_RESNET50,
    DEEPLABV3_RESNET101,
    FCN_RESNET50,
    FCN_RESNET101,
    LRASPP_MOBILENET_V3,
    PREPROCESSINGS,
    TORCHVISION_MOBILENET_V3,
    TORCHVISION_RESNET50,
    TORCHVISION_RESNET101,
    TORCHVISION_VGG16,
    Layout,
)

# Those with a head come first: a network has all variables of its backbone's, too.
_LAYOUTS = (
    FCN_RESNET50,
    FCN_RESNET101,
    DEEPLABV3_RESNET50,
    DEEPLABV3_RESNET101,
    LRASPP_MOBILENET_V3,
    TORCHVISION_RESNET50,
    TORCHVISION_RESNET101,
    TORCHVISION_VGG16,
    TORCHVISION_MOBILENET_V3,
)
_TORCH = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def torchvision_has(segmenter_name: str) -> bool:
    """Return whether torchvision has the backbone of this key of `SEGMENTERS`."""
    return any(layout.segmenter == segmenter_name for layout in _LAYOUTS)


def to_torchvision(
    variables: dict[str, Any], *, segmenter_name: str
) -> dict[str, np.ndarray]:
    """Return the weights with torchvision's tensor names and axis orders.

    Layers that torchvision does not have keep their own names and take PyTorch's axis
    orders: `score.weight` as in Conv2d, `upsample8.weight` as in ConvTranspose2d. So do
    all layers of a head that torchvision does not have with this backbone.

    Raises:
        ValueError: If torchvision does not have this architecture.
    """
    if not torchvision_has(segmenter_name):
        known = dict.fromkeys(layout.segmenter for layout in _LAYOUTS)
        raise ValueError(
            f"torchvision does not have the network of model.name={segmenter_name!r}, "
            f"so its weights cannot be exported; {', '.join(known)} can"
        )
    flat = flatten_dict(variables, sep="/")
    tensors = {
        row.file: row.arrangement.to_file(np.asarray(flat.pop(row.linen)))
        for row in _layout(segmenter_name, frozenset(flat)).rows
        if row.linen in flat
    }
    for path, value in flat.items():
        _, *modules, parameter = path.split("/")
        name = ".".join([*modules, _TORCH.get(parameter, parameter)])
        if parameter == "kernel":
            # ConvTranspose2d stores (in, out, row, column), also without flipping.
            axes = (2, 3, 0, 1) if name.startswith("upsample") else (3, 2, 0, 1)
            value = np.asarray(value).transpose(axes)
        tensors[name] = np.asarray(value)
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _layout(segmenter_name: str, paths: frozenset[str]) -> Layout:
    """Return the layout that has the network's head, or else that of its backbone."""
    return next(
        layout
        for layout in _LAYOUTS
        if layout.segmenter == segmenter_name
        and all(
            row.linen in paths for row in layout.rows if "/auxiliary/" not in row.linen
        )
    )


def save_torchvision(
    path: Path,
    variables: dict[str, Any],
    *,
    segmenter_name: str,
    preprocessing: Preprocessing,
) -> None:
    """Write the tensors of `to_torchvision` and the preprocessing as safetensors.

    The preprocessing is stored in the file's metadata, because torchvision's names
    would otherwise imply torchvision's preprocessing even if the weights were trained
    with another one. `preprocessing_of` uses the metadata where there is any.

    Raises:
        OSError, safetensors.SafetensorError: If the file cannot be written.
        ValueError: If torchvision does not have this architecture, or if the
            preprocessing is not one of `PREPROCESSINGS`.
    """
    names = [name for name, known in PREPROCESSINGS.items() if known == preprocessing]
    if not names:
        raise ValueError(
            f"{path} cannot be written: {preprocessing} has no name for the metadata; "
            f"use one of {', '.join(PREPROCESSINGS)}"
        )
    tensors = to_torchvision(variables, segmenter_name=segmenter_name)
    metadata = {"format": "pt", "preprocessing": names[0]}
    with atomic.replacing(path) as partial:
        save_file(tensors, partial, metadata=metadata)
