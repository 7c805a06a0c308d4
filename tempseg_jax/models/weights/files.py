"""Read weight files in formats that cannot run code: safetensors and Keras' HDF5."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open

PICKLES = (".pth", ".pt", ".bin", ".pkl", ".pickle", ".ckpt", ".tar")

# Keras 2 writes "conv1_conv/conv1_conv/kernel:0"; Keras 1, which wrote the published
# VGG-16 file, "block1_conv1/block1_conv1_W_1:0".
_KERAS_NAME = re.compile(
    r"(?:.*[/_])?(kernel|bias|gamma|beta|moving_mean|moving_variance|W|b)(?:_\d+)?(?::0)?"
)
_KERAS_1 = {"W": "kernel", "b": "bias"}


class Index(NamedTuple):
    """Tensor names, shapes and metadata of a weight file, read without any tensor."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]  # of a safetensors file; empty for HDF5


def read_index(path: Path) -> Index:
    """Return a file's index, with Keras' names as "layer/kernel", "layer/bias", ...

    Raises:
        ValueError: If the file may be a pickle, is damaged, or has another format.
    """
    with _open(path) as file:
        if isinstance(file, h5py.File):
            shapes = {name: file[at].shape for name, at in _keras_paths(file).items()}
            return Index(shapes, {})
        shapes = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}
        return Index(shapes, file.metadata() or {})


def read_tensors(path: Path, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, tensor as float32) for each of these names from `read_index`.

    Raises:
        ValueError: If a tensor cannot be read or has a value that is not finite.
    """
    with _open(path) as file:
        keras_paths = _keras_paths(file) if isinstance(file, h5py.File) else None
        for name in names:
            try:
                if keras_paths is None:
                    tensor = file.get_tensor(name)
                else:
                    tensor = file[keras_paths[name]][()]
            except (OSError, SafetensorError) as error:
                raise ValueError(
                    f"{path}: {name} cannot be read ({error}); download the file again"
                ) from error
            tensor = np.asarray(tensor, np.float32)
            if not np.isfinite(tensor).all():
                raise ValueError(
                    f"{path}: {name} has a value that is not finite; download the "
                    "file again"
                )
            yield name, tensor


def _open(path: Path) -> h5py.File | safe_open:
    if path.suffix in PICKLES:
        target = path.with_suffix(".safetensors").name
        raise ValueError(
            f"{path} may be a pickle, which can run any code when it is loaded; if you "
            "trust it, convert it in an environment with torch: "
            f"python scripts/convert_weights.py {path} {target}"
        )
    try:
        if path.suffix == ".safetensors":
            return safe_open(path, framework="numpy")
        if path.suffix in (".h5", ".hdf5"):
            return h5py.File(path, "r")
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{path} is damaged or is not a {path.suffix} file ({error}); download it "
            "again"
        ) from error
    raise ValueError(
        f"{path}: weights are read from .safetensors and Keras .h5 files, "
        f"not from {path.suffix or 'a file without a suffix'}"
    )


def _keras_paths(file: h5py.File) -> dict[str, str]:
    """Return {"layer/role": path in the file}.

    A file that holds a whole saved model has the weights in the group "model_weights".
    """
    root = file.get("model_weights", file)
    paths = {}

    def add(at: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            match = _KERAS_NAME.fullmatch(at)
            layer = at.split("/")[-2:-1]
            role = match and _KERAS_1.get(match[1], match[1])
            paths[f"{layer[0]}/{role}" if layer and role else at] = item.name

    root.visititems(add)
    return paths
