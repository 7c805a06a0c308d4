"""The official Cityscapes IoU (cityscapesScripts, evalPixelLevelSemanticLabeling).

It differs from the IoU over trainIds if a prediction holds an ignored labelId. The
official IoU counts such a pixel as a false negative of its true class; a confusion
matrix over trainIds cannot represent it.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8

from tempseg_jax.data.labels import CITYSCAPES_HIGHEST_LABEL_ID, CITYSCAPES_LABEL_IDS

LABEL_IDS = CITYSCAPES_HIGHEST_LABEL_ID + 1
"""Number of labelIds, 0 to 33; the license plate's -1 is never scored."""


def label_id_confusion(
    truth: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h_p w_p"]
) -> Int[np.ndarray, "34 34"]:
    """Count pixels by [true labelId, predicted labelId].

    Raises:
        ValueError: If the two have different sizes, or a labelId is above 33.
    """
    if truth.shape != prediction.shape:
        raise ValueError(
            f"the ground truth has {truth.shape} pixels and the prediction "
            f"{prediction.shape}; both must have the image's size"
        )
    highest = max(truth.max(initial=0), prediction.max(initial=0))
    if highest >= LABEL_IDS:
        raise ValueError(
            f"labelId {highest} does not exist; labelIds are 0 to {LABEL_IDS - 1}: "
            "give a map of labelIds, not of trainIds or colors"
        )
    cells = truth.astype(np.int64) * LABEL_IDS + prediction
    counts = np.bincount(cells.ravel(), minlength=LABEL_IDS**2)
    return counts.reshape(LABEL_IDS, LABEL_IDS)


def from_train_ids(confusion: Int[np.ndarray, "19 19"]) -> Int[np.ndarray, "34 34"]:
    """Convert a confusion matrix over trainIds to labelIds; ignored rows are zero."""
    full = np.zeros((LABEL_IDS, LABEL_IDS), np.int64)
    full[np.ix_(CITYSCAPES_LABEL_IDS, CITYSCAPES_LABEL_IDS)] = confusion
    return full


def official_iou(confusion: Int[np.ndarray, "34 34"]) -> Float[np.ndarray, "19"]:
    """Return the IoU of each scored class, in the order of the trainIds.

    The false negatives of a class include its pixels predicted as an ignored labelId.
    Its false positives are counted only on pixels of other scored classes. NaN for a
    class that occurs in neither.
    """
    ids = np.array(CITYSCAPES_LABEL_IDS)
    true_positive = confusion[ids, ids]
    false_negative = confusion[ids].sum(axis=1) - true_positive
    false_positive = confusion[np.ix_(ids, ids)].sum(axis=0) - true_positive
    union = true_positive + false_negative + false_positive
    return np.divide(
        true_positive, union, out=np.full(len(ids), np.nan), where=union > 0
    )


def official_miou(confusion: Int[np.ndarray, "34 34"]) -> float:
    """Return the mean of `official_iou` over the classes that occur; NaN if none."""
    iou = official_iou(confusion)
    return float(np.nanmean(iou)) if not np.isnan(iou).all() else float("nan")
