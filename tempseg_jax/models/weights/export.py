"""Export a segmenter's weights for PyTorch, with torchvision's tensor names."""

from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from tempseg_jax.io import atomic
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.models.weights.layouts import (
    PREPROCESSINGS,
    TORCHVISION_RESNET50,
    TORCHVISION_VGG16,
)

_LAYOUTS = {
    layout.segmenter: layout for layout in (TORCHVISION_VGG16, TORCHVISION_RESNET50)
}


def to_torchvision(
    variables: dict[str, Any], *, segmenter_name: str
) -> dict[str, np.ndarray]:
    """Return the weights with torchvision's tensor names and axis orders.

    The score layers and the learned upsampling do not exist in torchvision's
    classifiers. They keep their own names and take PyTorch's axis orders:
    `score.weight` as in Conv2d, `upsample8.weight` as in ConvTranspose2d.

    Raises:
        ValueError: If torchvision does not have this architecture.
    """
    if segmenter_name not in _LAYOUTS:
        raise ValueError(
            f"torchvision does not have the network of model.name={segmenter_name!r}, "
            f"so its weights cannot be exported; {' and '.join(_LAYOUTS)} can"
        )
    flat = flatten_dict(variables, sep="/")
    tensors = {
        row.file: row.arrangement.to_file(np.asarray(flat.pop(row.linen)))
        for row in _LAYOUTS[segmenter_name].rows
    }
    for path, value in flat.items():
        *_, module, parameter = path.split("/")
        if parameter == "kernel":
            # ConvTranspose2d stores (in, out, row, column), also without flipping.
            axes = (2, 3, 0, 1) if module.startswith("upsample") else (3, 2, 0, 1)
            tensors[f"{module}.weight"] = np.asarray(value).transpose(axes)
        else:
            tensors[f"{module}.{parameter}"] = np.asarray(value)
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


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
