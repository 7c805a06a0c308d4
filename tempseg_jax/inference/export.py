"""Export a trained segmenter as StableHLO and safetensors, usable without this package.

The programs are exported for CPU and CUDA, even if the exporting machine has only one
of them. Where an operation has a faster form on one platform, the program has both.
"""

import inspect
import json
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

from tempseg_jax.data import buckets, image_reader
from tempseg_jax.data.transforms import PAD_COLOR
from tempseg_jax.inference import standalone, tta
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.io import atomic
from tempseg_jax.models.weights.export import save_torchvision, torchvision_has

PLATFORMS = ("cpu", "cuda")

# An older JAX than the one that exported may not read the programs.
REQUIREMENTS = f"""\
flatbuffers>=24.3  # jax.export reads programs with it, and does not require it
jax>={jax.__version__},<0.13
numpy>=2.0
pillow>=10.4
safetensors>=0.5
"""
"""What `use.py` needs, as a requirements.txt."""

Weights = dict[str, Array]
"""The variables by their paths, such as `params/backbone/block1/conv1/kernel`."""


class Shape(NamedTuple):
    """Shape of the images that an exported program accepts; None means any."""

    batch: int | None
    height: int | None  # fixed or free together with the width
    width: int | None

    def dimensions(self) -> tuple[Any, ...]:
        """Return the batch, height and width; free ones are symbolic dimensions."""
        sizes = zip(("b", "h", "w"), self, strict=True)
        text = ", ".join(name if size is None else str(size) for name, size in sizes)
        return jax.export.symbolic_shape(text, constraints=_at_least_one(text))


def standalone_source() -> str:
    """Return the source of `use.py`: `standalone`, with `image_reader` copied into it.

    An image file then means the same to an exported program as to this package.
    """
    text = inspect.getsource(standalone)
    reader = inspect.getsource(image_reader).removeprefix(
        f'"""{image_reader.__doc__}"""'
    )
    line = "from tempseg_jax.data.image_reader import decode, read_bytes\n"
    before, after = text.split(line)
    copied = "# What follows is a copy of tempseg_jax/data/image_reader.py."
    end = "# End of the copy."
    return f"{before}{copied}\n{reader.rstrip()}\n\n{end}\n{after}"


def programs(predictor: Predictor) -> dict[str, Callable[..., Array]]:
    """Return the functions to export; they take weights, images and a temperature.

    Preprocessing is part of them. Images are padded as `predictor` pads them, so that
    the results are the same. (Unless told otherwise, `predictor` itself runs images of
    more than 2048 x 1024 pixels in windows.)

    Raises:
        ValueError: If `predictor` uses sliding windows; an exported program runs whole
            images.
    """
    if predictor.settings.window is not None:
        raise ValueError(
            f"window: {predictor.settings.window} cannot be exported, because an "
            "exported program runs whole images; leave --window out"
        )

    def logits(
        weights: Weights, image: UInt8[Array, "b h w 3"]
    ) -> Float[Array, "b h w k"]:
        b, h, w = image.shape[:3]
        shape = (b, *buckets.canvas((h, w)), 3)
        canvas = jnp.broadcast_to(jnp.array(PAD_COLOR, jnp.uint8), shape)
        canvas = jax.lax.dynamic_update_slice(canvas, image, (0, 0, 0, 0))
        variables = {"batch_stats": {}} | unflatten_dict(weights, sep="/")
        padded_logits = tta.mean_logits(
            variables,
            canvas,
            segmenter=predictor.segmenter,
            scales=predictor.settings.scales,
            flip=predictor.settings.flip,
        )
        return padded_logits[:, :h, :w]

    def labels(
        weights: Weights, image: UInt8[Array, "b h w 3"]
    ) -> UInt8[Array, "b h w"]:
        return jnp.argmax(logits(weights, image), axis=-1).astype(jnp.uint8)

    def probabilities(
        weights: Weights, image: UInt8[Array, "b h w 3"], temperature: Float[Array, ""]
    ) -> Float[Array, "b h w k"]:
        return jax.nn.softmax(logits(weights, image) / temperature)

    return {"labels": labels, "probabilities": probabilities}


def flat_weights(predictor: Predictor) -> dict[str, np.ndarray]:
    """Return the variables by path, as the exported programs take them."""
    flat = flatten_dict(predictor.variables, sep="/")
    return {path: np.asarray(value) for path, value in flat.items()}


_MARK = "labels.jax_export"


def is_export(folder: Path) -> bool:
    """Return whether `export` has written a folder."""
    return (folder / _MARK).is_file()


def export(predictor: Predictor, out: Path, *, shape: Shape) -> list[str]:
    """Write the export folder, and return the names of its files.

    The files are `labels.jax_export` and `probabilities.jax_export` (StableHLO,
    serialized by `jax.export`, for CPU and CUDA), `weights.safetensors`, `model.json`,
    `use.py`, `requirements.txt`, and `torchvision.safetensors` if torchvision has the
    architecture. Files of other names are kept.

    Raises:
        ValueError: If `predictor` uses sliding windows, or scales for images of any
            size, or `out` has a file of one of these names and is no export.
        OSError: If the folder cannot be written.
    """
    if predictor.settings.scales != (1.0,) and shape.height is None:
        raise ValueError(
            f"scales: {predictor.settings.scales} need images of a fixed size; pass "
            "--size too"
        )
    functions = programs(predictor)
    with atomic.adding_files(out, mark=_MARK) as folder:
        _write(predictor, functions, folder, shape=shape)
        names = sorted(path.name for path in folder.iterdir())
    return names


def _write(
    predictor: Predictor,
    functions: dict[str, Callable[..., Array]],
    folder: Path,
    *,
    shape: Shape,
) -> None:
    weights = flat_weights(predictor)
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
        "name": predictor.name,
        "dataset": predictor.dataset,
        "checkpoint": predictor.step,
        "class_names": predictor.class_names,
        "palette": predictor.palette.tolist(),
        "temperature_g": predictor.temperature_g,
        "image": ["any" if size is None else size for size in (*shape, 3)],
        "platforms": PLATFORMS,
        "jax": jax.__version__,
    }
    (folder / "model.json").write_text(json.dumps(model, indent=1) + "\n")
    (folder / "use.py").write_text(standalone_source())
    (folder / "requirements.txt").write_text(REQUIREMENTS)
    if torchvision_has(predictor.name):
        save_torchvision(
            folder / "torchvision.safetensors",
            predictor.variables,
            segmenter_name=predictor.name,
            preprocessing=predictor.segmenter.preprocessing,
        )
    for path in folder.iterdir():  # safetensors makes its files private to the user
        path.chmod((folder / "model.json").stat().st_mode)


def _at_least_one(text: str) -> list[str]:
    return [f"{name} >= 1" for name in text.split(", ") if name.isalpha()]
