"""Segmentation scores from one confusion matrix over a whole data set."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from tempseg_jax.types import IGNORE_LABEL


def confusion_matrix(
    labels: Integer[Array, "*b"], predictions: Integer[Array, "*b"], *, num_classes: int
) -> Int[Array, "{num_classes} {num_classes}"]:
    """Count pixels by [ground truth, prediction]; void is counted nowhere.

    int32: one call must see fewer than 2³¹ pixels. Sum the calls in int64.
    """
    scored = labels != IGNORE_LABEL
    row = labels.astype(jnp.int32)  # uint8 cannot hold 13 * 20
    cell = jnp.where(scored, row * num_classes + predictions, num_classes**2)
    counts = jnp.bincount(cell.ravel(), length=num_classes**2 + 1)
    return counts[:-1].reshape(num_classes, num_classes)


def iou_per_class(confusion: Int[np.ndarray, "k k"]) -> Float[np.ndarray, "k"]:
    """TP / (TP + FP + FN); NaN for a class absent from both truth and prediction."""
    true_positives = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - true_positives
    return _ratio(true_positives, union)


def scores(confusion: Int[np.ndarray, "k k"]) -> dict[str, float]:
    """pAcc, mIoU, mean class accuracy and frequency-weighted IoU, each 0 to 1.

    Classes absent from both truth and prediction are left out of the means; all four
    are NaN where nothing was scored.
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
    """Average over the classes that occur; NaN where none does."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
