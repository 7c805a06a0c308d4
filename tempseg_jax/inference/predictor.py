"""Predict images with a trained segmenter."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, UInt8

from tempseg_jax.data import buckets
from tempseg_jax.data.transforms import PAD_COLOR
from tempseg_jax.inference import image_files, sliding_window, tta
from tempseg_jax.inference.predict_batches import predict_in_batches
from tempseg_jax.inference.settings import InferenceSettings
from tempseg_jax.inference.sliding_window import Band


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
        self._log_probabilities = partial(tta.log_probabilities, variables, **network)
        self._devices = Mesh(np.array(jax.local_devices()[:1]), ("data",))
        self._sharding = NamedSharding(self._devices, PartitionSpec("data"))

    def __call__(self, image: image_files.Input) -> UInt8[np.ndarray, "h w"]:
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
            batch = sliding_window.at_least_a_window(batch, windows[0], PAD_COLOR)
            labels = jnp.zeros(batch.shape[:3], jnp.uint8, device=self._sharding)
            for band in self._bands(batch, (h, w), windows):
                labels = sliding_window.paste(
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
            ValueError: If `batch_size` is below 1, an image cannot be read, or its
                pixel type is not supported.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} is below 1")

        def label_batch(
            batch: UInt8[np.ndarray, "b h w 3"],
        ) -> UInt8[np.ndarray, "b h w"]:
            return np.asarray(self._labels(self.variables, batch))

        return predict_in_batches(
            images,
            batch_size=batch_size,
            label_batch=label_batch,
            label_image=self,
            runs_whole=lambda x: self.settings.windows(*x.shape[:2]) is None,
        )

    def probabilities(
        self, image: image_files.Input, temperature: float = 1.0
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
        batch = sliding_window.at_least_a_window(batch, windows[0], PAD_COLOR)
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
        return sliding_window.bands(
            jax.device_put(batch, self._sharding),
            np.array([size]),
            self._log_probabilities,
            window=window,
            stride=stride,
            devices=self._devices,
        )


def _padded_batch(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "1 _ _ 3"]:
    """Return a batch of one image, padded so that few shapes are compiled."""
    height, width = buckets.canvas(image.shape[:2])
    return buckets.padded(image, height=height, width=width)[None]


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def _labels(
    variables: PyTree, image: UInt8[Array, "b h w 3"], **network: Any
) -> UInt8[Array, "b h w"]:
    return _most_probable(tta.mean_logits(variables, image, **network))


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def _probabilities(
    variables: PyTree,
    image: UInt8[Array, "b h w 3"],
    temperature: Float[Array, ""],
    **network: Any,
) -> Float[Array, "b h w k"]:
    logits = tta.mean_logits(variables, image, **network)
    return _temper(logits, temperature)


@jax.jit
def _most_probable(logits: Float[Array, "b h w k"]) -> UInt8[Array, "b h w"]:
    return jnp.argmax(logits, axis=-1).astype(jnp.uint8)


@jax.jit
def _temper(
    logits: Float[Array, "b h w k"], temperature: Float[Array, ""]
) -> Float[Array, "b h w k"]:
    return jax.nn.softmax(logits / temperature)
