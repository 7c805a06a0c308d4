"""Load a trained segmenter from a workdir, and predict images with it."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array, Float, PyTree, UInt8
from PIL import Image

from tempseg_jax.data import buckets
from tempseg_jax.data.transforms import PAD_COLOR
from tempseg_jax.inference import image_files, published, sliding_window, window_sums
from tempseg_jax.inference.batches import in_batches
from tempseg_jax.inference.sliding_window import InferenceSettings
from tempseg_jax.inference.window_sums import Band
from tempseg_jax.models import SEGMENTERS, with_field
from tempseg_jax.models.build import build_segmenter
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.precision import COMPUTE_DTYPES
from tempseg_jax.workdir.checkpoint import Checkpoints, Step

Input = str | Path | Image.Image | UInt8[np.ndarray, "h w 3"]
"""A file, a PIL image, or an RGB array: see `image_files.read`."""


class Predictor:
    """A trained segmenter: `predictor(image)` returns the label of every pixel.

    Attributes:
        class_names: Names of the k classes, in the order of the labels.
        palette: Colors of the classes, RGB.
        dataset: Name of the dataset that defines the classes.
        temperature_g: T_G in training.
        name: Name of the architecture, a key of `SEGMENTERS`.
        segmenter: The network, including its preprocessing.
        variables: Its parameters and running statistics.
        settings: Sliding-window inference and test-time augmentation.
        step: Training step of the checkpoint.
        model: The description of the segmenter that the checkpoint stores.
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
        """Wrap what `load` restored; `model` is the checkpoint's item of that name."""
        self.segmenter, self.variables = segmenter, variables
        self.settings, self.step = settings, step
        self.model = model
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
        self._probabilities = partial(_probabilities, **network)
        self._log_probabilities = partial(
            sliding_window.log_probabilities, variables, **network
        )
        self._devices = Mesh(np.array(jax.local_devices()[:1]), ("data",))
        self._sharding = NamedSharding(self._devices, PartitionSpec("data"))

    def __call__(self, image: Input) -> UInt8[np.ndarray, "h w"]:
        """Return the most probable class of every pixel, at the image's size.

        Raises:
            ValueError: If the image cannot be read, or its pixel type is not supported.
        """
        image = image_files.read(image)
        h, w = image.shape[:2]
        batch = _padded_batch(image)
        windows = self.settings.windows(h, w)
        if windows is None:
            labels = self._labels(self.variables, batch)
        else:
            batch = window_sums.at_least_a_window(batch, windows[0], PAD_COLOR)
            labels = jnp.zeros(batch.shape[:3], jnp.uint8, device=self._sharding)
            for band in self._bands(batch, (h, w), windows):
                labels = window_sums.paste(
                    labels, _most_probable(band.logits), band, devices=self._devices
                )
        return np.asarray(labels)[0, :h, :w]

    def predict_many(
        self, images: Iterable[Any], *, batch_size: int = 8
    ) -> Iterator[UInt8[np.ndarray, "_ _"]]:
        """Yield the labels of each image, in their order, computed in batches.

        Images whose sizes round up to the same multiples of 128 pixels share a batch.
        Images that do not run whole are predicted one at a time.

        Args:
            images: Files, Pillow images or arrays, of any sizes.
            batch_size: Images per batch.

        Raises:
            ValueError: If an image cannot be read, or its pixel type is not supported.
        """

        def whole(
            batch: UInt8[np.ndarray, "b h w 3"],
        ) -> UInt8[np.ndarray, "b h w"]:
            return np.asarray(self._labels(self.variables, batch))

        return in_batches(
            images,
            batch_size=batch_size,
            whole=whole,
            single=self,
            is_whole=lambda x: self.settings.windows(*x.shape[:2]) is None,
        )

    def probabilities(
        self, image: Input, temperature: float = 1.0
    ) -> Float[np.ndarray, "h w k"]:
        """Return the probabilities of all classes, softmax(log p / T).

        The result has the image's size and takes 4 bytes for each pixel and class: 2 GB
        for 24 megapixels and 21 classes.

        Raises:
            ValueError: If the image cannot be read, its pixel type is not supported, or
                `temperature` is not positive.
        """
        if not temperature > 0:
            raise ValueError(
                f"temperature: {temperature} is not positive; it divides log p"
            )
        image = image_files.read(image)
        h, w = image.shape[:2]
        batch = _padded_batch(image)
        windows = self.settings.windows(h, w)
        if windows is None:
            p = self._probabilities(self.variables, batch, temperature)
            return np.asarray(p)[0, :h, :w]
        batch = window_sums.at_least_a_window(batch, windows[0], PAD_COLOR)
        result = None
        for band in self._bands(batch, (h, w), windows):
            p = np.asarray(_temper(band.logits, temperature))[0, :, :w]
            if result is None:
                result = np.empty((h, w, p.shape[-1]), np.float32)
            top = int(band.tops[0])
            rows = min(int(band.rows[0]), h - top)
            result[top : top + rows] = p[:rows]
        return result

    def _bands(
        self,
        batch: UInt8[np.ndarray, "1 _ _ 3"],
        size: tuple[int, int],
        windows: tuple[int, int],
    ) -> Iterator[Band]:
        window, stride = windows
        return window_sums.bands(
            jax.device_put(batch, self._sharding),
            np.array([size]),
            self._log_probabilities,
            window=window,
            stride=stride,
            devices=self._devices,
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
    """Load a trained segmenter onto one device.

    Args:
        workdir: Folder of a training run, of which only the checkpoints are read; or
            one that scripts/publish.py wrote; or hf://USER/NAME, which is downloaded
            from the Hugging Face Hub.
        checkpoint: "best" (highest validation mIoU), "latest", or a step. What is
            published has only one.
        window: Side of the windows of sliding-window inference, in pixels. By default
            images of up to 2048 x 1024 pixels run whole, and larger ones in windows.
        stride: Pixels between windows; by default two thirds of a window.
        scales: Scales of test-time augmentation, whose probabilities are averaged.
        flip: Test-time augmentation: also average over the mirror image.
        precision: "float32", "bfloat16" or "float16"; by default that of training.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If an argument is out of range, or SEGMENTERS does not have the
            checkpoint's architecture.
    """
    settings = InferenceSettings(
        window=window, stride=stride, scales=tuple(scales), flip=flip
    )
    if str(workdir).startswith(published.HUB):
        workdir = published.fetch(str(workdir))
    if published.is_published(workdir):
        return _load_published(workdir, settings=settings, precision=precision)
    checkpoints = Checkpoints(workdir)

    def read(step: int) -> Predictor:
        model = checkpoints.model(step)
        segmenter = _build_segmenter(
            model, precision=precision, where=f"{checkpoints.folder}/{step}"
        )
        abstract = _abstract_variables(segmenter)
        variables = checkpoints.restore_segmenter(abstract, model, step=step)
        return Predictor(
            segmenter, variables, model=model, settings=settings, step=step
        )

    try:
        return checkpoints.read(checkpoint, read)
    finally:
        checkpoints.close()


def _load_published(
    folder: str | Path, *, settings: InferenceSettings, precision: str | None
) -> Predictor:
    """Load what scripts/publish.py wrote."""
    model, step, variables = published.read(folder)
    segmenter = _build_segmenter(model, precision=precision, where=str(folder))
    abstract = _abstract_variables(segmenter)
    if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, abstract):
        raise ValueError(
            f"{folder}: the weights are not those of the network that "
            f"{published.DESCRIPTION} describes; publish it again"
        )
    placed = jax.tree.map(
        lambda x, y: jax.device_put(x, y.sharding), variables, abstract
    )
    return Predictor(segmenter, placed, model=model, settings=settings, step=step)


def _build_segmenter(
    model: dict[str, Any], *, precision: str | None, where: str
) -> nn.Module:
    """Return the network that a checkpoint's `model` item describes."""
    if model["name"] not in SEGMENTERS:
        raise ValueError(
            f"{where}: model.name {model['name']!r} is not one of "
            f"{', '.join(sorted(SEGMENTERS))}; register it in "
            "tempseg_jax.models.SEGMENTERS first"
        )
    precision = precision or model["precision"]
    if precision not in COMPUTE_DTYPES:
        raise ValueError(
            f"precision: {precision!r} is not one of {', '.join(COMPUTE_DTYPES)}"
        )
    segmenter = build_segmenter(
        model["name"],
        head=model["head"],
        output_stride=model["output_stride"],
        auxiliary=model["auxiliary"],
        num_classes=model["num_classes"],
        preprocessing=Preprocessing.restored(model["preprocessing"]),
        width=model["width"],
        dtype=COMPUTE_DTYPES[precision],
        remat=False,
    )
    if not model["drop_connect"]:
        return segmenter
    return with_field(segmenter, "drop_connect", model["drop_connect"])


def _abstract_variables(segmenter: nn.Module) -> PyTree:
    """Return the variables' shapes, placed on one device.

    The checkpoint may have been trained on more devices than this machine has.
    """
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8)
    init = partial(segmenter.init, train=False)
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    variables = {"batch_stats": {}} | jax.eval_shape(init, jax.random.key(0), image)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), variables
    )


def _padded_batch(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "1 _ _ 3"]:
    """Return a batch of one image, padded so that few shapes are compiled."""
    height, width = buckets.canvas(image.shape[:2])
    return sliding_window.padded(image, height=height, width=width)[None]


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def _labels(
    variables: PyTree, image: UInt8[Array, "b h w 3"], **network: Any
) -> UInt8[Array, "b h w"]:
    return _most_probable(sliding_window.mean_logits(variables, image, **network))


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def _probabilities(
    variables: PyTree,
    image: UInt8[Array, "b h w 3"],
    temperature: Float[Array, ""],
    **network: Any,
) -> Float[Array, "b h w k"]:
    logits = sliding_window.mean_logits(variables, image, **network)
    return _temper(logits, temperature)


@jax.jit
def _most_probable(logits: Float[Array, "b h w k"]) -> UInt8[Array, "b h w"]:
    return jnp.argmax(logits, axis=-1).astype(jnp.uint8)


@jax.jit
def _temper(
    logits: Float[Array, "b h w k"], temperature: Float[Array, ""]
) -> Float[Array, "b h w k"]:
    return jax.nn.softmax(logits / temperature)
