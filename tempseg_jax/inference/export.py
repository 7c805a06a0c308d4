"""A trained segmenter as StableHLO and safetensors, usable without this package."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, UInt8
from safetensors.numpy import save_file

from tempseg_jax.data.transforms import PAD_COLOR
from tempseg_jax.inference import sliding_window, standalone
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.models.weights.export import save_torchvision

PLATFORMS = ("cpu", "cuda")

Weights = dict[str, Array]
"""The variables by their paths, such as `params/backbone/block1/conv1/kernel`."""


class Shape(NamedTuple):
    """Of the images that an exported program takes; None: whatever it is given."""

    batch: int | None
    height: int | None  # both or neither
    width: int | None

    def dimensions(self) -> tuple[Any, ...]:
        """Return the batch, height and width, symbols where they are free."""
        sizes = zip(("b", "h", "w"), self, strict=True)
        text = ", ".join(name if size is None else str(size) for name, size in sizes)
        return jax.export.symbolic_shape(text, constraints=_at_least_one(text))


def programs(segment: Predictor) -> dict[str, Callable[..., Array]]:
    """Return what is exported: functions of weights, images and a temperature.

    Preprocessing is inside. Images are filled up as `segment` fills them up, so that
    the results are the same.

    Raises:
        ValueError: `segment` is to cut windows, which a single program cannot.
    """
    if segment.settings.window is not None:
        raise ValueError("window: an exported program runs whole images; leave it out")

    def log_p(
        weights: Weights, image: UInt8[Array, "b h w 3"]
    ) -> Float[Array, "b h w k"]:
        b, h, w = image.shape[:3]
        shape = (b, sliding_window.up_to_bucket(h), sliding_window.up_to_bucket(w), 3)
        canvas = jnp.broadcast_to(jnp.array(PAD_COLOR, jnp.uint8), shape)
        canvas = jax.lax.dynamic_update_slice(canvas, image, (0, 0, 0, 0))
        variables = {"batch_stats": {}} | unflatten_dict(weights, sep="/")
        found = sliding_window.log_probabilities(
            variables,
            canvas,
            segmenter=segment.segmenter,
            scales=segment.settings.scales,
            flip=segment.settings.flip,
        )
        return found[:, :h, :w]

    def labels(
        weights: Weights, image: UInt8[Array, "b h w 3"]
    ) -> UInt8[Array, "b h w"]:
        return jnp.argmax(log_p(weights, image), axis=-1).astype(jnp.uint8)

    def probabilities(
        weights: Weights, image: UInt8[Array, "b h w 3"], temperature: Float[Array, ""]
    ) -> Float[Array, "b h w k"]:
        return jax.nn.softmax(log_p(weights, image) / temperature)

    return {"labels": labels, "probabilities": probabilities}


def weights_of(segment: Predictor) -> dict[str, np.ndarray]:
    """Return the variables by path, as the exported programs take them."""
    flat = flatten_dict(segment.variables, sep="/")
    return {path: np.asarray(value) for path, value in flat.items()}


def export(segment: Predictor, out: Path, *, shape: Shape) -> list[str]:
    """Write the folder; return what is in it.

    `labels.jax_export` and `probabilities.jax_export` (StableHLO in the serialization
    of `jax.export`, for CPU and CUDA), `weights.safetensors`, `model.json`, `use.py`,
    and `torchvision.safetensors` where torchvision has the architecture.

    Raises:
        ValueError: windows, or scales of images of unknown size, were asked for.
        OSError: the folder cannot be written.
    """
    if segment.settings.scales != (1.0,) and shape.height is None:
        raise ValueError(
            f"scales: {segment.settings.scales} need a fixed size; pass --size too"
        )
    functions = programs(segment)
    partial = out.with_name(f"{out.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        _write(segment, functions, partial, shape=shape)
        out.mkdir(exist_ok=True)
        for path in sorted(partial.iterdir()):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(path.name for path in out.iterdir())


def _write(
    segment: Predictor,
    functions: dict[str, Callable[..., Array]],
    folder: Path,
    *,
    shape: Shape,
) -> None:
    weights = weights_of(segment)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights)
    image = jax.ShapeDtypeStruct((*shape.dimensions(), 3), jnp.uint8)
    temperature = jax.ShapeDtypeStruct((), jnp.float32)
    for name, function in functions.items():
        arguments = [abstract, image, temperature][: 2 + (name == "probabilities")]
        exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)
        data = exported(*arguments).serialize()
        (folder / f"{name}.jax_export").write_bytes(data)
    save_file(weights, folder / "weights.safetensors")
    model = {
        "name": segment.name,
        "dataset": segment.dataset,
        "checkpoint": segment.step,
        "class_names": segment.class_names,
        "palette": segment.palette.tolist(),
        "temperature_g": segment.temperature_g,
        "image": ["any" if size is None else size for size in (*shape, 3)],
        "platforms": PLATFORMS,
        "jax": jax.__version__,
    }
    (folder / "model.json").write_text(json.dumps(model, indent=1) + "\n")
    shutil.copyfile(standalone.__file__, folder / "use.py")
    if segment.name != "resnet50":  # Keras' own, which torchvision has not
        save_torchvision(
            folder / "torchvision.safetensors",
            segment.variables,
            segmenter_name=segment.name,
            preprocessing=segment.segmenter.preprocessing,
        )
    for path in folder.iterdir():  # safetensors lets nobody else read its files
        path.chmod((folder / "model.json").stat().st_mode)


def _at_least_one(text: str) -> list[str]:
    return [f"{name} >= 1" for name in text.split(", ") if name.isalpha()]
