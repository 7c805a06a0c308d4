"""A workdir to a function from images to labels; nothing else is needed."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array, Float, PyTree, UInt8
from PIL import Image

from tempseg_jax.inference import image_files, sliding_window
from tempseg_jax.inference.sliding_window import InferenceSettings
from tempseg_jax.models import SEGMENTERS
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.precision import COMPUTE_DTYPES
from tempseg_jax.workdir.checkpoint import Checkpoints, Step

Input = str | Path | Image.Image | UInt8[np.ndarray, "h w 3"]
"""A file, a PIL image, or an RGB array: see `image_files.read`."""


class Predictor:
    """A trained segmenter: `segment(image)` returns labels.

    Attributes:
        class_names: of the k classes, in the order of the labels.
        palette: their colors, RGB.
        dataset: whose classes they are.
        temperature_g: T_G of training.
        name: of the architecture, a key of `SEGMENTERS`.
        segmenter: the network; its preprocessing is a part of it.
        variables: its parameters and running statistics.
        settings: sliding windows, scales and flips.
        step: of the checkpoint.
    """

    def __init__(
        self,
        segmenter: nn.Module,
        variables: PyTree,
        *,
        model: dict[str, Any],
        settings: InferenceSettings,
        step: int,
    ):
        """Wrap what `load` restored."""
        self.segmenter, self.variables = segmenter, variables
        self.settings, self.step = settings, step
        self.name: str = model["name"]
        self.dataset: str = model["dataset"]
        self.class_names = tuple(model["class_names"])
        self.palette = np.array(model["palette"], np.uint8)
        self.temperature_g: float = model["temperature_g"]
        network = {
            "segmenter": segmenter,
            "scales": settings.scales,
            "flip": settings.flip,
        }
        self._labels = partial(_labels, **network)
        self._log_p = partial(_log_p, **network)
        self._p = partial(_p, **network)

    def __call__(self, image: Input) -> UInt8[np.ndarray, "h w"]:
        """Return the most probable class of every pixel, at the image's size.

        Raises:
            ValueError: the image cannot be read, or is of a kind that is not meant.
        """
        image = image_files.read(image)
        h, w = image.shape[:2]
        windows = self.settings.windows(h, w)
        if windows is None:
            labels = self._labels(self.variables, _batch_of_one(image))
            return np.asarray(labels)[0, :h, :w]
        labels = np.empty((h, w), np.uint8)
        for top, p in self._bands(image, windows):
            labels[top : top + len(p)] = p.argmax(axis=-1)
        return labels

    def probabilities(
        self, image: Input, temperature: float = 1.0
    ) -> Float[np.ndarray, "h w k"]:
        """Return every class's probability, softmax(log p / T), at the image's size.

        They take 4 bytes for each pixel and class: 2 GB for 24 megapixels, 21 classes.

        Raises:
            ValueError: as a call; or `temperature` is not positive.
        """
        if not temperature > 0:
            raise ValueError(f"temperature: {temperature} is not positive")
        image = image_files.read(image)
        h, w = image.shape[:2]
        windows = self.settings.windows(h, w)
        if windows is None:
            log_p = self._log_p(self.variables, _batch_of_one(image))
            return np.asarray(_temper(log_p[0], temperature))[:h, :w]
        result = None
        for top, p in self._bands(image, windows):
            if result is None:
                result = np.empty((h, w, p.shape[-1]), np.float32)
            np.maximum(p, np.finfo(np.float32).tiny, out=p)
            if temperature != 1:
                # Dividing by the largest first: p ** (1 / T) may underflow.
                p /= p.max(axis=-1, keepdims=True)
                p **= 1 / temperature
            p /= p.sum(axis=-1, keepdims=True)
            result[top : top + len(p)] = p
        return result

    def _bands(
        self, image: UInt8[np.ndarray, "h w 3"], windows: tuple[int, int]
    ) -> Iterator[tuple[int, Float[np.ndarray, "rows w k"]]]:
        return sliding_window.bands(
            image,
            partial(self._p, self.variables),
            window=windows[0],
            stride=windows[1],
            devices=1,
        )


def load(
    workdir: str | Path,
    checkpoint: Step = "best",
    *,
    window: int | None = None,
    stride: int | None = None,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    precision: str | None = None,
) -> Predictor:
    """Restore a trained segmenter onto one device, from its workdir alone.

    Args:
        workdir: of a run; only its checkpoints are read.
        checkpoint: best (highest validation mIoU), latest, or a step.
        window: pixels a side; None runs images whole, up to 2 megapixels.
        stride: pixels between windows; None is two thirds of a window.
        scales: whose probabilities are averaged.
        flip: average with the mirror image.
        precision: float32, bfloat16 or float16; None is that of training.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: an argument that cannot be.
    """
    settings = InferenceSettings(
        window=window, stride=stride, scales=tuple(scales), flip=flip
    )
    checkpoints = Checkpoints(workdir)
    try:
        step = checkpoints.resolve(checkpoint)
        model = checkpoints.model(step)
        precision = precision or model["precision"]
        if precision not in COMPUTE_DTYPES:
            raise ValueError(
                f"precision: {precision!r} is not one of {', '.join(COMPUTE_DTYPES)}"
            )
        segmenter = SEGMENTERS[model["name"]](
            num_classes=model["num_classes"],
            preprocessing=Preprocessing.restored(model["preprocessing"]),
            width=model["width"],
            dtype=COMPUTE_DTYPES[precision],
            remat=False,
        )
        like = _abstract_variables(segmenter)
        variables = checkpoints.restore_segmenter(like, model, step=step)
    finally:
        checkpoints.close()
    return Predictor(segmenter, variables, model=model, settings=settings, step=step)


def _abstract_variables(segmenter: nn.Module) -> PyTree:
    """Return the variables' shapes, on one device wherever they were trained."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8)
    init = partial(segmenter.init, train=False)
    place = SingleDeviceSharding(jax.local_devices()[0])
    variables = {"batch_stats": {}} | jax.eval_shape(init, jax.random.key(0), image)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), variables
    )


def _batch_of_one(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "1 _ _ 3"]:
    h, w = (sliding_window.up_to_bucket(n) for n in image.shape[:2])
    return sliding_window.padded(image, height=h, width=w)[None]


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def _log_p(
    variables: PyTree, image: UInt8[Array, "b h w 3"], **network: Any
) -> Float[Array, "b h w k"]:
    return sliding_window.log_probabilities(variables, image, **network)


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def _p(
    variables: PyTree, image: UInt8[Array, "b h w 3"], **network: Any
) -> Float[Array, "b h w k"]:
    return jnp.exp(sliding_window.log_probabilities(variables, image, **network))


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def _labels(
    variables: PyTree, image: UInt8[Array, "b h w 3"], **network: Any
) -> UInt8[Array, "b h w"]:
    log_p = sliding_window.log_probabilities(variables, image, **network)
    return jnp.argmax(log_p, axis=-1).astype(jnp.uint8)


@jax.jit
def _temper(
    log_p: Float[Array, "h w k"], temperature: Float[Array, ""]
) -> Float[Array, "h w k"]:
    return jax.nn.softmax(log_p / temperature)
