"""Scores of a batch: the only forward pass of evaluation, and the counts after it."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, UInt8

from tempseg_jax.data.pipeline import EvalBatch
from tempseg_jax.evaluation import calibration
from tempseg_jax.evaluation.calibration import Tally
from tempseg_jax.evaluation.metrics import confusion_matrix
from tempseg_jax.inference import sliding_window
from tempseg_jax.inference.sliding_window import InferenceSettings
from tempseg_jax.types import IGNORE_LABEL, Batch


class BatchScores(NamedTuple):
    """Scores of a batch, on the device or on the host."""

    confusion: Int[Array, "b k k"] | Int[np.ndarray, "b k k"]
    tally: Tally  # one row for each image
    prediction: UInt8[Array, "b h w"] | UInt8[np.ndarray, "b h w"]


def score_batch(
    variables: PyTree,
    batch: EvalBatch,
    *,
    segmenter: nn.Module,
    settings: InferenceSettings,
    temperatures: Float[np.ndarray, "t"],
    place: Callable[[Batch], Batch],
    devices: int,
) -> Iterator[tuple[EvalBatch, BatchScores]]:
    """Yield the batch with its scores, or with windows each image as a batch of one.

    The device may still be computing the scores of whole images when they are yielded.
    """
    network = {"segmenter": segmenter, "scales": settings.scales, "flip": settings.flip}
    windows = settings.windows(*batch["image"].shape[1:3])
    if windows is None:
        placed = place({"image": batch["image"], "label": batch["label"]})
        yield batch, _score_whole(variables, placed, temperatures, **network)
        return

    def forward(crops: UInt8[np.ndarray, "b h w 3"]) -> Float[Array, "b h w k"]:
        return _probabilities(variables, place({"image": crops})["image"], **network)

    for i, (height, width) in enumerate(batch["size"].tolist()):
        if height:
            image = batch["image"][i, :height, :width]
            label = batch["label"][i, :height, :width]
            bands = sliding_window.bands(
                image, forward, window=windows[0], stride=windows[1], devices=devices
            )
            scores = _score_bands(bands, label, windows[0], temperatures)
            yield _one_image(batch, i), scores


def to_64_bits(tree: PyTree) -> PyTree:
    """Copy arrays to the host as int64 or float64."""

    def widen(x: Array | np.ndarray) -> np.ndarray:
        integer = np.issubdtype(x.dtype, np.integer)
        return np.asarray(x, np.int64 if integer else np.float64)

    return jax.tree.map(widen, tree)


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def _score_whole(
    variables: PyTree,
    batch: Batch,
    temperatures: Float[Array, "t"],
    *,
    segmenter: nn.Module,
    scales: tuple[float, ...],
    flip: bool,
) -> BatchScores:
    log_p = sliding_window.log_probabilities(
        variables, batch["image"], segmenter=segmenter, scales=scales, flip=flip
    )
    return _score(log_p, batch["label"], temperatures)


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def _probabilities(
    variables: PyTree,
    image: UInt8[Array, "b h w 3"],
    *,
    segmenter: nn.Module,
    scales: tuple[float, ...],
    flip: bool,
) -> Float[Array, "b h w k"]:
    log_p = sliding_window.log_probabilities(
        variables, image, segmenter=segmenter, scales=scales, flip=flip
    )
    return jnp.exp(log_p)


def _score_bands(
    bands: Iterator[tuple[int, Float[np.ndarray, "rows w k"]]],
    label: UInt8[np.ndarray, "h w"],
    window: int,
    temperatures: Float[np.ndarray, "t"],
) -> BatchScores:
    """Sum the scores of an image over its bands of rows, at most `window` high."""
    height, width = label.shape
    # All bands are padded to one shape, so that one program is compiled.
    shape = (window, sliding_window.up_to_bucket(width))
    prediction = np.empty((1, height, width), np.uint8)
    parts = []
    for top, p in bands:
        rows, k = len(p), p.shape[-1]
        padded_p = np.full((*shape, k), 1 / k, np.float32)
        padded_p[:rows, :width] = p
        padded_label = np.full(shape, IGNORE_LABEL, np.uint8)
        padded_label[:rows, :width] = label[top : top + rows]
        scores = _score_band(padded_p, padded_label, temperatures)
        parts.append(to_64_bits((scores.confusion, scores.tally)))
        predicted = np.asarray(scores.prediction)
        prediction[0, top : top + rows] = predicted[0, :rows, :width]
    confusion, tally = jax.tree.map(lambda *x: sum(x), *parts)
    return BatchScores(confusion, tally, prediction)


@jax.jit
def _score_band(
    p: Float[Array, "h w k"],
    label: UInt8[Array, "h w"],
    temperatures: Float[Array, "t"],
) -> BatchScores:
    log_p = jnp.log(jnp.maximum(p, jnp.finfo(jnp.float32).tiny))
    return _score(log_p[None], label[None], temperatures)


def _score(
    log_p: Float[Array, "b h w k"],
    label: UInt8[Array, "b h w"],
    temperatures: Float[Array, "t"],
) -> BatchScores:
    prediction = jnp.argmax(log_p, axis=-1)
    count = partial(confusion_matrix, num_classes=log_p.shape[-1])
    return BatchScores(
        confusion=jax.vmap(count)(label, prediction),
        tally=calibration.tally(log_p, label, temperatures=temperatures),
        prediction=prediction.astype(jnp.uint8),
    )


def _one_image(batch: EvalBatch, index: int) -> EvalBatch:
    one = slice(index, index + 1)
    return {
        "id": batch["id"][one],
        "image": batch["image"][one],
        "label": batch["label"][one],
        "size": batch["size"][one],
    }
