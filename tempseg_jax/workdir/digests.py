"""SHA-256 digests of a checkpoint's contents, which its restore verifies.

Orbax restores arrays with a flipped bit without an error. The digests are of the arrays
in memory, so that they also cover what happens between the device and the disk.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


def of_arrays(tree: PyTree) -> dict[str, str]:
    """Return the digest of every array by its path in the tree.

    Arrays must be replicated over all devices, as training states are.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    with ThreadPoolExecutor() as pool:  # hashlib computes without the GIL
        values = pool.map(_of_array, (leaf for _, leaf in leaves))
        return {
            jax.tree_util.keystr(path): value
            for (path, _), value in zip(leaves, values, strict=True)
        }


def of_json(content: Any) -> str:
    """Return the digest of a JSON value, whatever the order of its keys."""
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def difference(tree: PyTree, expected: dict[str, str] | None) -> str | None:
    """Return what is wrong with restored arrays, or None.

    Args:
        tree: The restored arrays.
        expected: The result of `of_arrays` when they were saved; None if an older
            version saved them, without digests.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = _on_host(leaf)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            return f"{jax.tree_util.keystr(path)} is not finite"
    if expected is None:
        return None
    for path, digest in of_arrays(tree).items():
        if expected.get(path) != digest:
            return f"{path} is not what was saved (by its SHA-256 digest)"
    return None


def _on_host(leaf: jax.Array | np.ndarray) -> np.ndarray:
    if isinstance(leaf, jax.Array):
        return np.asarray(leaf.addressable_data(0))
    return np.asarray(leaf)


def _of_array(leaf: jax.Array | np.ndarray) -> str:
    array = np.ascontiguousarray(_on_host(leaf))
    digest = hashlib.sha256(f"{array.dtype} {np.shape(leaf)} ".encode())
    digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()
