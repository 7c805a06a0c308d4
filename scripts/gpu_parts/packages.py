"""The packages that the cases import, so that a missing one is said at once."""

import importlib.util
from collections.abc import Sequence

STEP = ("flax", "jax", "jaxtyping", "numpy", "optax")
"""For a training step without config and data."""

CONFIG = (*STEP, "PIL", "absl", "cv2", "filelock", "grain", "h5py", "huggingface_hub")
CONFIG += ("ml_collections", "orbax", "safetensors", "tensorstore", "tqdm")
"""For a training step of a config: importing it imports the data pipeline."""

TRAINING = (*CONFIG, "array_record", "importlib_resources", "matplotlib")
TRAINING += ("scipy", "tensorboardX", "tensorflow_datasets")
"""For training on prepared data."""

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
"""One of these has XLA's compiler for CUDA."""


def missing(names: Sequence[str]) -> str:
    """Return in words which modules are not installed; empty if all are."""
    absent = [name for name in names if not importlib.util.find_spec(name)]
    if not absent:
        return ""
    return f"not installed: {', '.join(absent)}; requirements.txt lists the packages"


def missing_compiler() -> str:
    """Return in words that there is no compiler for CUDA; empty if there is one."""
    if any(map(importlib.util.find_spec, PLUGINS)):
        return ""
    return "compiling for a card needs the extra cuda-compile of the project"
