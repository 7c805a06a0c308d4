"""Boundary IoU (Cheng et al. 2021): the IoU of the boundary regions of two masks.

The boundary region of a mask is its pixels within 2 % of the image's diagonal from its
contour, as in the authors' code. Unlike IoU, this is sensitive to the contours of large
objects.
"""

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from tempseg_jax.types import IGNORE_LABEL

DILATION_RATIO = 0.02
"""Width of the boundary region, as a fraction of the image's diagonal."""


class BoundaryIoU:
    """Pixels in the intersection and the union of boundary regions, for each class."""

    def __init__(self, num_classes: int):
        self.sums: Int[np.ndarray, "k 2"] = np.zeros((num_classes, 2), np.int64)

    def add(
        self, label: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"]
    ) -> None:
        """Count one image.

        Ignored pixels of the label are removed from the prediction as well, because
        otherwise a correct prediction would have other contours than the label.
        """
        prediction = np.where(label == IGNORE_LABEL, IGNORE_LABEL, prediction)
        distance = max(1, round(DILATION_RATIO * float(np.hypot(*label.shape))))
        for k in np.union1d(label, prediction):
            if k == IGNORE_LABEL:
                continue
            truth, predicted = (
                boundary_region((x == k).astype(np.uint8), distance=distance)
                for x in (label, prediction)
            )
            self.sums[k, 0] += np.count_nonzero(truth & predicted)
            self.sums[k, 1] += np.count_nonzero(truth | predicted)


def boundary_region(
    mask: UInt8[np.ndarray, "h w"], *, distance: int
) -> UInt8[np.ndarray, "h w"]:
    """Return the mask's pixels within `distance` pixels of its contour.

    Masks hold 0 and 1. The edge of the image belongs to the contour, as in the authors'
    code.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return mask
    columns = np.flatnonzero(mask.any(axis=0))
    inner = np.zeros_like(mask)
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inner[box] = cv2.erode(
        np.ascontiguousarray(mask[box]),
        np.ones((3, 3), np.uint8),
        iterations=distance,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return mask - inner


def boundary_iou(sums: Int[np.ndarray, "k 2"]) -> Float[np.ndarray, "k"]:
    """Return the boundary IoU of each class, 0 to 1; NaN if the class never occurs."""
    intersection, union = sums.T
    return np.divide(
        intersection, union, out=np.full(len(sums), np.nan), where=union > 0
    )
