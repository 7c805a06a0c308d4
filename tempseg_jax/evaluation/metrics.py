"""Segmentation scores from the confusion matrix of a whole dataset."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from tempseg_jax.types import IGNORE_LABEL


def confusion_matrix(
    labels: Integer[Array, "*b"], predictions: Integer[Array, "*b"], *, num_classes: int
) -> Int[Array, "{num_classes} {num_classes}"]:
    """Count pixels by [ground truth, prediction]; ignored pixels are not counted.

    The counts are int32, so one call must have fewer than 2³¹ pixels. The sum over
    several calls needs int64.
    """
    scored = labels != IGNORE_LABEL
    row = labels.astype(jnp.int32)  # uint8 would overflow below
    cell = jnp.where(scored, row * num_classes + predictions, num_classes**2)
    counts = jnp.bincount(cell.ravel(), length=num_classes**2 + 1)
    return counts[:-1].reshape(num_classes, num_classes)


def iou_per_class(confusion: Int[np.ndarray, "k k"]) -> Float[np.ndarray, "k"]:
    """Return TP / (TP + FP + FN) of each class, 0 to 1.

    NaN for a class that occurs in neither the ground truth nor the predictions.
    """
    true_positives = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - true_positives
    return _ratio(true_positives, union)


def scores(confusion: Int[np.ndarray, "k k"]) -> dict[str, float]:
    """Return the scores of a confusion matrix, each 0 to 1, NaN if it is empty.

    Returns:
        `pacc`, the pixel accuracy; `miou`, the mean IoU over the classes that occur in
        ground truth or predictions; `macc`, the mean class accuracy over the classes
        that occur in the ground truth; `fwiou`, the frequency-weighted IoU.
    """
    truth = confusion.sum(1)
    iou = iou_per_class(confusion)
    return {
        "pacc": float(_ratio(np.trace(confusion), confusion.sum())),
        "miou": mean_of_present(iou),
        "macc": mean_of_present(_ratio(np.diag(confusion), truth)),
        "fwiou": float(_ratio(np.nansum(truth * iou), confusion.sum())),
    }


def _ratio(a: np.ndarray | np.number, b: np.ndarray | np.number) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=np.asarray(b) > 0)


def mean_of_present(values: Float[np.ndarray, "k"]) -> float:
    """Return the mean over the values that are not NaN; NaN if all are."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
