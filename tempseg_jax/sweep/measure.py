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
from tempseg_jax.evaluation import calibration
from tempseg_jax.evaluation.calibration import BINS, Tally
from tempseg_jax.evaluation.evaluator import Example
from tempseg_jax.evaluation.metrics import confusion_matrix
from tempseg_jax.steps import predict
from tempseg_jax.types import Batch


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


def measure(
    variables: PyTree,
    batches: Iterable[EvalBatch],
    *,
    segmenter: nn.Module,
    num_classes: int,
    temperatures: tuple[float, ...],
    pictures_of: frozenset[str],
) -> tuple[Measurement, list[Example]]:
    """Measure every image once, and return the pictures of those named."""
    devices = mesh.local_mesh()
    ids, confusions, nats, pictures = [], [], [], []
    bins = np.zeros((len(temperatures), BINS, 3))
    for batch in batches:
        arrays = {"image": batch["image"], "label": batch["label"]}
        measured = _measure_batch(
            variables,
            mesh.split_batch(arrays, devices),
            np.array(temperatures, np.float32),
            segmenter=segmenter,
            num_classes=num_classes,
        )
        counts, tally, predictions = jax.tree.map(np.asarray, measured)
        sums = (tally.count, tally.correct, tally.confidence)
        bins += np.stack([x.sum(axis=0, dtype=np.float64) for x in sums], axis=-1)
        for i, (height, width) in enumerate(batch["size"]):
            if not height:  # a batch is filled up with images of size 0
                continue
            id_ = batch["id"][i]
            ids.append(id_)
            confusions.append(counts[i])
            nats.append(tally.nll[i])
            if id_ in pictures_of:
                cut = np.s_[i, :height, :width]
                image, label = batch["image"][cut], batch["label"][cut]
                pictures.append(Example(id_, image, label, predictions[cut]))
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
) -> tuple[Int[Array, "b k k"], Tally, UInt8[Array, "b h w"]]:
    logits = predict(variables, batch["image"], segmenter=segmenter)
    labels = batch["label"]
    predictions = jnp.argmax(logits, axis=-1).astype(jnp.uint8)
    counts = jax.vmap(partial(confusion_matrix, num_classes=num_classes))(
        labels, predictions
    )
    log_p = jax.nn.log_softmax(logits)
    tally = calibration.tally(log_p, labels, temperatures=temperatures)
    return counts, tally, predictions
