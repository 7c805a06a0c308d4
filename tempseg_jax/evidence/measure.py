"""A trained segmenter on whole images: one confusion matrix an image, calibration."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, UInt8

from tempseg_jax import mesh
from tempseg_jax.data.pipeline import EvalBatch
from tempseg_jax.metrics import confusion_matrix
from tempseg_jax.steps import predict
from tempseg_jax.types import IGNORE_LABEL, Batch

BINS = 15
"""Of equal width, for the expected calibration error (Guo et al. 2017)."""


class Measurement(NamedTuple):
    """One split, image by image; calibration at each of several temperatures."""

    ids: list[str]
    confusion: Int[np.ndarray, "n k k"]  # [image, ground truth, prediction]
    nats: Float[np.ndarray, "n t"]  # summed -log p_T[label] of the scored pixels
    bins: Float[np.ndarray, "t 15 3"]  # scored pixels, those right, their confidence

    @property
    def nll(self) -> Float[np.ndarray, "t"]:
        """Mean negative log-likelihood of a scored pixel, in nats."""
        return self.nats.sum(axis=0) / self.confusion.sum()

    @property
    def ece(self) -> Float[np.ndarray, "t"]:
        """Expected calibration error: mean |accuracy - confidence| over the bins."""
        pixels, right, confidence = np.moveaxis(self.bins, -1, 0)
        return np.abs(right - confidence).sum(axis=-1) / pixels.sum(axis=-1)


class Picture(NamedTuple):
    """One image as it was measured, at its native size."""

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]


def measure(
    variables: PyTree,
    batches: Iterable[EvalBatch],
    *,
    segmenter: nn.Module,
    num_classes: int,
    temperatures: tuple[float, ...],
    pictures_of: frozenset[str],
) -> tuple[Measurement, list[Picture]]:
    """Measure every image once, and return the pictures of those named."""
    devices = mesh.local_mesh()
    ids, confusions, nats, pictures = [], [], [], []
    bins = np.zeros((len(temperatures), BINS, 3))
    for batch in batches:
        arrays = {"image": batch["image"], "label": batch["label"]}
        measured = _measure_batch(
            variables,
            mesh.split_batch(arrays, devices),
            jnp.array(temperatures),
            segmenter=segmenter,
            num_classes=num_classes,
        )
        counts, batch_nats, batch_bins, predictions = map(np.asarray, measured)
        bins += batch_bins
        for i, (height, width) in enumerate(batch["size"]):
            if not height:  # a batch is filled up with images of size 0
                continue
            id_ = batch["id"][i]
            ids.append(id_)
            confusions.append(counts[i])
            nats.append(batch_nats[i])
            if id_ in pictures_of:
                cut = np.s_[i, :height, :width]
                image, label = batch["image"][cut], batch["label"][cut]
                pictures.append(Picture(id_, image, label, predictions[cut]))
    return Measurement(
        ids, np.array(confusions, np.int64), np.array(nats, np.float64), bins
    ), pictures


@partial(jax.jit, static_argnames=("segmenter", "num_classes"))
def _measure_batch(
    variables: PyTree,
    batch: Batch,
    temperatures: Float[Array, "t"],
    *,
    segmenter: nn.Module,
    num_classes: int,
) -> tuple[
    Int[Array, "b k k"],
    Float[Array, "b t"],
    Float[Array, "t 15 3"],
    UInt8[Array, "b h w"],
]:
    logits = predict(variables, batch["image"], segmenter=segmenter)
    labels = batch["label"]
    predictions = jnp.argmax(logits, axis=-1).astype(jnp.uint8)
    counts = jax.vmap(partial(confusion_matrix, num_classes=num_classes))(
        labels, predictions
    )
    scored = labels != IGNORE_LABEL
    right = predictions == labels
    label_logit = jnp.take_along_axis(
        logits, jnp.where(scored, labels, 0)[..., None].astype(jnp.int32), axis=-1
    )[..., 0]

    def at(temperature: Array) -> tuple[Array, Array]:
        normalizer = jax.nn.logsumexp(logits / temperature, axis=-1)
        nats = jnp.sum(
            normalizer - label_logit / temperature, axis=(1, 2), where=scored
        )
        confidence = jnp.exp(jnp.max(logits, axis=-1) / temperature - normalizer)
        return nats, _bins(confidence, right, scored)

    nats, bins = jax.lax.map(at, temperatures)
    return counts, nats.T, bins, predictions


def _bins(
    confidence: Float[Array, "*b"], right: Array, scored: Array
) -> Float[Array, "15 3"]:
    """Sum by confidence: pixels, pixels that are right, confidence."""
    index = jnp.clip(jnp.floor(confidence * BINS).astype(jnp.int32), 0, BINS - 1)

    def one(i: Array) -> Array:
        inside = scored & (index == i)
        counts = [jnp.sum(inside), jnp.sum(inside & right)]
        total = jnp.sum(confidence, where=inside)
        return jnp.array([*map(jnp.float32, counts), total])

    return jax.lax.map(one, jnp.arange(BINS))
