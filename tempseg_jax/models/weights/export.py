"""Give a segmenter's weights to PyTorch, under torchvision's names."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

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
    """Return the weights under torchvision's names and in its arrangement.

    The scores and the learned upsampling, which torchvision's classifiers lack, keep
    their own names: `score.weight`, `upsample8.weight` (as in ConvTranspose2d).

    Raises:
        ValueError: torchvision has no such architecture.
    """
    if segmenter_name not in _LAYOUTS:
        raise ValueError(
            f"torchvision has no network like {segmenter_name!r} (its ResNet-50 is "
            "resnet50_v15), so these weights cannot have its names"
        )
    flat = flatten_dict(variables, sep="/")
    tensors = {
        row.file: row.arrangement.to_file(np.asarray(flat.pop(row.linen)))
        for row in _LAYOUTS[segmenter_name].rows
    }
    for path, value in flat.items():
        *_, module, parameter = path.split("/")
        if parameter == "kernel":
            # A ConvTranspose2d keeps (in, out, row, column); neither side flips.
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
    """Write `to_torchvision` as safetensors, and with it what input it expects.

    The names alone would say torchvision's preprocessing, also where the weights were
    trained under another; `preprocessing_of` believes the metadata first.

    Raises:
        ValueError: torchvision has no such architecture, or the preprocessing no name.
    """
    names = [name for name, known in PREPROCESSINGS.items() if known == preprocessing]
    if not names:
        raise ValueError(f"{preprocessing} is none of {', '.join(PREPROCESSINGS)}")
    tensors = to_torchvision(variables, segmenter_name=segmenter_name)
    partial = path.with_name(path.name + ".part")
    save_file(tensors, partial, metadata={"format": "pt", "preprocessing": names[0]})
    os.replace(partial, path)
