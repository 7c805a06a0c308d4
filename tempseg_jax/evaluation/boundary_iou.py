"""Boundary IoU (Cheng et al. 2021): IoU of the masks' inner rims alone.

IoU is blind to the outlines of large objects. Here a mask counts within a distance of
2 % of the image's diagonal from its own outline, as in the authors' code.
"""

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from tempseg_jax.types import IGNORE_LABEL

DILATION_RATIO = 0.02
"""Of the image's diagonal: how far inside its outline a mask counts."""


class BoundaryIoU:
    """Pixels in the intersection and the union of rims, class by class, summed up."""

    def __init__(self, num_classes: int):
        self.sums: Int[np.ndarray, "k 2"] = np.zeros((num_classes, 2), np.int64)

    def add(
        self, label: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"]
    ) -> None:
        """Count one image.

        Void pixels are cut out of the prediction too before its outline is drawn:
        otherwise a right prediction, which has no void, would have other outlines.
        """
        prediction = np.where(label == IGNORE_LABEL, IGNORE_LABEL, prediction)
        distance = max(1, round(DILATION_RATIO * float(np.hypot(*label.shape))))
        for k in np.union1d(label, prediction):
            if k == IGNORE_LABEL:
                continue
            truth, found = (
                rim((x == k).astype(np.uint8), distance=distance)
                for x in (label, prediction)
            )
            self.sums[k, 0] += np.count_nonzero(truth & found)
            self.sums[k, 1] += np.count_nonzero(truth | found)


def rim(mask: UInt8[np.ndarray, "h w"], *, distance: int) -> UInt8[np.ndarray, "h w"]:
    """Return the mask's pixels within `distance` of its outline; both 0 and 1.

    The image's edge is an outline too, as in the authors' code.
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
    """Return each class's boundary IoU over the split; NaN where it never occurred."""
    intersection, union = sums.T
    return np.divide(
        intersection, union, out=np.full(len(sums), np.nan), where=union > 0
    )
