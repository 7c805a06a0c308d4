"""Read weight files in formats that cannot run code: safetensors and Keras' HDF5."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from safetensors import safe_open

PICKLES = (".pth", ".pt", ".bin", ".pkl", ".pickle", ".ckpt", ".tar")

# Keras 2 writes "conv1_conv/conv1_conv/kernel:0"; Keras 1, which wrote the published
# VGG-16 file, "block1_conv1/block1_conv1_W_1:0".
_KERAS_NAME = re.compile(
    r"(?:.*[/_])?(kernel|bias|gamma|beta|moving_mean|moving_variance|W|b)(?:_\d+)?(?::0)?"
)
_KERAS_1 = {"W": "kernel", "b": "bias"}


_MAX_COMPRESSION = 1000  # of HDF5, whose filters include gzip
_MAX_FILLED = 2**30  # bytes of a tensor that is one value and is not stored


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
            with _damage(path):
                paths = _keras_paths(file)
                shapes = {name: tuple(file[at].shape) for name, at in paths.items()}
            return Index(shapes, {})
        with _damage(path):
            shapes = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}
            return Index(shapes, file.metadata() or {})


def read_tensors(path: Path, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, tensor as float32) for each of these names from `read_index`.

    Raises:
        ValueError: If a tensor cannot be read or has a value that is not finite.
    """
    with _open(path) as file:
        keras_paths = None
        if isinstance(file, h5py.File):
            with _damage(path):
                keras_paths = _keras_paths(file)
        for name in names:
            with _damage(path, name):
                if keras_paths is None:
                    tensor = file.get_tensor(name)
                else:
                    tensor = _dataset(file[keras_paths[name]])
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
    with _damage(path):
        if path.suffix == ".safetensors":
            return safe_open(path, framework="numpy")
        if path.suffix in (".h5", ".hdf5"):
            return h5py.File(path, "r")
    raise ValueError(
        f"{path}: weights are read from .safetensors and Keras .h5 files, "
        f"not from {path.suffix or 'a file without a suffix'}"
    )


@contextlib.contextmanager
def _damage(path: Path, tensor: str = "") -> Iterator[None]:
    """Replace any error of reading: HDF5 raises many types for damaged files.

    Raises:
        ValueError: If anything is raised, with the remedy.
    """
    try:
        yield
    except (PermissionError, FileNotFoundError):
        raise
    except Exception as error:  # also MemoryError, for a shape that is damaged
        where = (
            f"{path}: {tensor} cannot be read"
            if tensor
            else (f"{path} is damaged or is not a {path.suffix} file")
        )
        reason = " ".join(f"{error}".split())[:120]
        raise ValueError(f"{where} ({reason}); download it again") from error


def _dataset(item: h5py.Dataset) -> np.ndarray:
    """Read a tensor; its bytes must be in the file, which a damaged shape's are not.

    Raises:
        ValueError: If it is larger than what the file stores of it can be.
    """
    size, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
    if size > (_MAX_COMPRESSION * stored or _MAX_FILLED):
        raise ValueError(f"its shape {item.shape} needs {size:,} bytes, not {stored:,}")
    return item[()]


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
