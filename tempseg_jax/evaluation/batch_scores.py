"""Scores of a batch: the only forward pass of evaluation, whole or in windows."""

from collections.abc import Callable, Iterator
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, PyTree, UInt8

from tempseg_jax import mesh
from tempseg_jax.data.pipeline import EvalBatch
from tempseg_jax.data.transforms import PAD_COLOR
from tempseg_jax.evaluation.pixel_scores import Scores, score_pixels
from tempseg_jax.inference import sliding_window, tta
from tempseg_jax.inference.settings import InferenceSettings
from tempseg_jax.types import IGNORE_LABEL, Batch


def score_batch(
    variables: PyTree,
    batch: EvalBatch,
    *,
    segmenter: nn.Module,
    settings: InferenceSettings,
    temperatures: Float[np.ndarray, "t"],
    devices: Mesh,
) -> Iterator[tuple[EvalBatch, Scores]]:
    """Yield the batch with its scores; with windows, a part of one image per device.

    Nothing here waits for the device, which may still be computing the scores when they
    are yielded.
    """
    network = {"segmenter": segmenter, "scales": settings.scales, "flip": settings.flip}
    windows = settings.windows(*batch["image"].shape[1:3])
    if windows is None:
        placed = mesh.split_batch(
            {"image": batch["image"], "label": batch["label"]}, devices
        )
        yield batch, _score_whole(variables, placed, temperatures, **network)
        return
    forward = partial(tta.log_probabilities, variables, **network)
    for first in range(0, len(batch["id"]), devices.size):
        part = _part(batch, slice(first, first + devices.size))
        if part["size"].any():
            yield (
                part,
                _score_windows(
                    part, forward, *windows, temperatures=temperatures, devices=devices
                ),
            )


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
) -> Scores:
    logits = tta.mean_logits(
        variables, batch["image"], segmenter=segmenter, scales=scales, flip=flip
    )
    return score_pixels(logits, batch["label"], temperatures=temperatures)


def _score_windows(
    batch: EvalBatch,
    forward: Callable[[Array], Array],
    window: int,
    stride: int,
    *,
    temperatures: Float[np.ndarray, "t"],
    devices: Mesh,
) -> Scores:
    """Score one image on each device, one band of rows after another."""
    images = sliding_window.at_least_a_window(batch["image"], window, PAD_COLOR)
    labels = sliding_window.at_least_a_window(batch["label"], window, IGNORE_LABEL)
    placed = mesh.split_batch({"image": images, "label": labels}, devices)
    total, prediction = None, _no_prediction(placed["label"])
    for band in sliding_window.bands(
        placed["image"],
        batch["size"],
        forward,
        window=window,
        stride=stride,
        devices=devices,
    ):
        label = sliding_window.rows_at(
            placed["label"], band.tops, window=window, devices=devices
        )
        scores = _score_band(band.logits, label, band.rows, temperatures)
        prediction = sliding_window.paste(
            prediction, scores.prediction, band, devices=devices
        )
        sums = scores[:2]
        total = sums if total is None else _plus(total, sums)
    return Scores(*total, prediction)


@jax.jit
def _score_band(
    logits: Float[Array, "b window w k"],
    labels: UInt8[Array, "b window w"],
    rows: Int32[Array, "b"],
    temperatures: Float[Array, "t"],
) -> Scores:
    """Score the complete rows of a band."""
    complete = jnp.arange(labels.shape[1])[None, :, None] < rows[:, None, None]
    labels = jnp.where(complete, labels, IGNORE_LABEL)
    return score_pixels(logits, labels, temperatures=temperatures)


_no_prediction = jax.jit(jnp.zeros_like)
_plus = jax.jit(partial(jax.tree.map, jnp.add))


def _part(batch: EvalBatch, part: slice) -> EvalBatch:
    return {
        "id": batch["id"][part],
        "image": batch["image"][part],
        "label": batch["label"][part],
        "size": batch["size"][part],
    }
