"""A trained segmenter as ONNX, by jax2onnx, checked with onnxruntime."""

import logging
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from tempseg_jax.inference.export import Shape, programs, weights_of
from tempseg_jax.inference.predictor import Predictor

TOLERANCE = 1e-3
"""Of a probability; both compute in float32, in another order."""


def export_onnx(segment: Predictor, path: Path, *, shape: Shape) -> float:
    """Write uint8 images (b, h, w, 3) to probabilities (b, h, w, k) at T = 1.

    The sizes are fixed: the program is traced to JAX's primitives first, because
    jax2onnx's own forms of Linen's convolutions and of bilinear resizing do not cover
    ours (version 0.17). Weights may be in a file beside it, `model.onnx.data`.

    Returns:
        The largest difference from JAX in any probability of a random image.

    Raises:
        ValueError: jax2onnx or onnxruntime is not installed; the results differ.
    """
    try:
        import jax2onnx
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            f"ONNX needs {error.name}, which is not installed; in an environment of "
            "its own (it wants an older Orbax), pip install -e '.[onnx]'"
        ) from error
    if segment.segmenter.dtype != jnp.float32:
        raise ValueError(
            f"onnxruntime lacks {jnp.dtype(segment.segmenter.dtype)} on a CPU; pass "
            "--precision=float32"
        )
    weights = jax.tree.map(jnp.asarray, weights_of(segment))
    probabilities = programs(segment)["probabilities"]

    def at_one(image: jax.Array) -> jax.Array:
        return probabilities(weights, image, jnp.float32(1))

    spec = jax.ShapeDtypeStruct((*shape, 3), jnp.uint8)
    traced = jaxpr_as_fun(jax.make_jaxpr(at_one)(spec))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder) / path.name
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # hundreds of lines about shapes
        try:
            jax2onnx.to_onnx(
                lambda image: traced(image)[0],
                [spec],
                return_mode="file",
                output_path=str(partial),
            )
        finally:
            logging.disable(before)
        session = onnxruntime.InferenceSession(
            str(partial), providers=["CPUExecutionProvider"]
        )
        image = np.random.default_rng(0).integers(0, 256, spec.shape, np.uint8)
        (found,) = session.run(None, {session.get_inputs()[0].name: image})
        with jax.default_matmul_precision("highest"):  # a GPU's float32 may be TF32
            expected = np.asarray(jax.jit(at_one)(image))
        difference = float(np.abs(found - expected).max())
        if not difference < TOLERANCE:
            raise ValueError(
                f"{path}: onnxruntime's probabilities differ from JAX's by "
                f"{difference}; not written. Report the versions of both"
            )
        for file in sorted(Path(folder).iterdir(), reverse=True):  # the weights first
            file.chmod(partial.stat().st_mode)
            file.replace(path.parent / file.name)
    return difference
