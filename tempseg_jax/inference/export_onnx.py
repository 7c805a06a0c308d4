"""Export a trained segmenter as ONNX with jax2onnx, and compare it by onnxruntime."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Float, UInt8

from tempseg_jax.inference.export import Shape, flat_weights, programs
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.io import atomic
from tempseg_jax.models import ops

TOLERANCE = 1e-3
"""Largest allowed difference of a probability between ONNX and JAX.

Both compute in float32, but add in another order.
"""


def export_onnx(predictor: Predictor, path: Path, *, shape: Shape) -> float:
    """Write a model from uint8 images (b, h, w, 3) to probabilities (b, h, w, k).

    The temperature is 1, and batch, height and width are fixed: the program is traced
    to JAX's primitives first, because jax2onnx's own conversions of Linen convolutions
    and of bilinear resizing do not cover all of ours (version 0.17). Operations are
    exported in their CPU form, because jax2onnx cannot convert a choice by platform.
    The weights may be in a second file, `model.onnx.data`, in the folder of `path`.

    Returns:
        The largest difference of a probability from JAX, for one random image.

    Raises:
        ValueError: If jax2onnx or onnxruntime is not installed, the precision is not
            float32, or the probabilities differ from JAX's by `TOLERANCE` or more.
        OSError: If the files cannot be written.
    """
    try:
        import jax2onnx
        import onnxruntime  # noqa: F401 (used at the end, after a long conversion)
    except ImportError as error:
        raise ValueError(
            f"the ONNX export needs {error.name}, which is not installed; run pip "
            "install -e '.[onnx]' in a separate environment, because it needs an older "
            "Orbax"
        ) from error
    dtype = jnp.dtype(predictor.segmenter.dtype)
    if dtype != jnp.float32:
        raise ValueError(
            f"precision: onnxruntime does not support {dtype} on a CPU; pass "
            "--precision=float32"
        )
    weights = jax.tree.map(jnp.asarray, flat_weights(predictor))
    probabilities = programs(predictor)["probabilities"]

    def at_temperature_one(image: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w k"]:
        return probabilities(weights, image, jnp.float32(1))

    spec = jax.ShapeDtypeStruct((*shape, 3), jnp.uint8)
    with ops.forms_of("cpu"):
        traced = jaxpr_as_fun(jax.make_jaxpr(at_temperature_one)(spec))
    with atomic.adding_files(path.parent) as folder:
        partial = folder / path.name
        with _no_warnings():  # jax2onnx logs hundreds of lines about shapes
            jax2onnx.to_onnx(
                lambda image: traced(image)[0],
                [spec],
                return_mode="file",
                output_path=str(partial),
            )
        difference = _difference(partial, at_temperature_one, shape=spec.shape)
        if not difference < TOLERANCE:
            raise ValueError(
                f"{path}: was not written, because onnxruntime's probabilities differ "
                f"from JAX's by {difference}; report the versions of jax, jax2onnx "
                "and onnxruntime"
            )
        for file in folder.iterdir():  # the second file may be private to the user
            file.chmod(partial.stat().st_mode)
    return difference


def _difference(
    path: Path,
    function: Callable[[Array], Array],
    *,
    shape: tuple[int, ...],
) -> float:
    """Return the largest difference between an ONNX file and a JAX function."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    (actual,) = session.run(None, {session.get_inputs()[0].name: image})
    with jax.default_matmul_precision("highest"):  # a GPU's float32 may be TF32
        expected = np.asarray(jax.jit(function)(image))
    return float(np.abs(actual - expected).max())


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Disable log messages up to the level of warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
