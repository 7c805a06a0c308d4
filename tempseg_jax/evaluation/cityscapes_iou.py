"""The official Cityscapes score (cityscapesScripts, evalPixelLevelSemanticLabeling).

It differs from the plain one over trainIds where a prediction is an ignored id: that is
an error of the true class here, while a plain matrix has no place for it.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8

from tempseg_jax.data.labels import CITYSCAPES_HIGHEST_LABEL_ID, CITYSCAPES_LABEL_IDS

LABEL_IDS = CITYSCAPES_HIGHEST_LABEL_ID + 1
"""labelIds 0 to 33; the license plate's -1 is scored nowhere."""


def label_id_confusion(
    truth: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h_p w_p"]
) -> Int[np.ndarray, "34 34"]:
    """Count pixels by [true labelId, predicted labelId].

    Raises:
        ValueError: different sizes, or an id above 33.
    """
    if truth.shape != prediction.shape:
        raise ValueError(
            f"a ground truth of {truth.shape} pixels and a prediction of "
            f"{prediction.shape}; both must be the image's size"
        )
    highest = max(truth.max(initial=0), prediction.max(initial=0))
    if highest >= LABEL_IDS:
        raise ValueError(
            f"labelId {highest} does not exist; they are 0 to {LABEL_IDS - 1}. Is it "
            "a map of trainIds or of colors?"
        )
    cells = truth.astype(np.int64) * LABEL_IDS + prediction
    counts = np.bincount(cells.ravel(), minlength=LABEL_IDS**2)
    return counts.reshape(LABEL_IDS, LABEL_IDS)


def from_train_ids(confusion: Int[np.ndarray, "19 19"]) -> Int[np.ndarray, "34 34"]:
    """Give a matrix over trainIds its labelIds; ignored ground truth counts nowhere."""
    full = np.zeros((LABEL_IDS, LABEL_IDS), np.int64)
    full[np.ix_(CITYSCAPES_LABEL_IDS, CITYSCAPES_LABEL_IDS)] = confusion
    return full


def official_iou(confusion: Int[np.ndarray, "34 34"]) -> Float[np.ndarray, "19"]:
    """Return the IoU of each scored class, in the order of trainId; NaN where absent.

    A class's false negatives are its whole row, ignored ids included; its false
    positives come only from rows of other scored classes.
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
    """Return the mean over the classes that occur; NaN where none does."""
    iou = official_iou(confusion)
    return float(np.nanmean(iou)) if not np.isnan(iou).all() else float("nan")
