"""Boundary IoU (Cheng et al. 2021): the IoU of the boundary regions of two masks.

The boundary region of a mask is its pixels within 2 % of the image's diagonal from its
contour, as in the authors' code. Unlike IoU, this is sensitive to the contours of large
objects.
"""

import collections
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from tempseg_jax.types import IGNORE_LABEL

DILATION_RATIO = 0.02
"""Width of the boundary region, as a fraction of the image's diagonal."""

_WAITING = 2  # images for each thread, so that memory does not grow


class BoundaryIoU:
    """Pixels in the intersection and the union of boundary regions, for each class.

    Images are counted in threads, inside `with BoundaryIoU.in_threads(...)`, because
    the thread that feeds the device must not wait.
    """

    def __init__(self, num_classes: int, pool: ThreadPoolExecutor, *, waiting: int):
        """Count in the threads of a pool, with at most `waiting` images in memory."""
        self._sums: Int[np.ndarray, "k 2"] = np.zeros((num_classes, 2), np.int64)
        self._pool, self._waiting = pool, waiting
        self._running: collections.deque[Future] = collections.deque()

    @classmethod
    @contextmanager
    def in_threads(cls, num_classes: int, threads: int) -> Iterator["BoundaryIoU"]:
        """Yield an empty count with this number of threads, at least one."""
        threads = max(1, threads)
        with ThreadPoolExecutor(threads) as pool:
            yield cls(num_classes, pool, waiting=_WAITING * threads)

    def add(
        self, label: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"]
    ) -> None:
        """Count one image; wait only if too many others are waiting."""
        counted = self._pool.submit(
            count_boundaries, label, prediction, num_classes=len(self._sums)
        )
        self._running.append(counted)
        if len(self._running) > self._waiting:
            self._sums += self._running.popleft().result()

    def sums(self) -> Int[np.ndarray, "k 2"]:
        """Return the sums over all images."""
        while self._running:
            self._sums += self._running.popleft().result()
        return self._sums


def count_boundaries(
    label: UInt8[np.ndarray, "h w"],
    prediction: UInt8[np.ndarray, "h w"],
    *,
    num_classes: int,
) -> Int[np.ndarray, "{num_classes} 2"]:
    """Return each class's intersection and union of boundary regions, in pixels.

    Ignored pixels of the label are removed from the prediction as well, because
    otherwise a correct prediction would have other contours than the label.
    """
    prediction = np.where(label == IGNORE_LABEL, IGNORE_LABEL, prediction)
    distance = max(1, round(DILATION_RATIO * float(np.hypot(*label.shape))))
    near_truth = near_contours(label, distance=distance)
    near_predicted = near_contours(prediction, distance=distance)
    both = near_truth & near_predicted & (label == prediction)
    truth, predicted, intersection = (
        np.bincount(classes, minlength=IGNORE_LABEL + 1)[:num_classes]
        for classes in (label[near_truth], prediction[near_predicted], label[both])
    )
    return np.stack([intersection, truth + predicted - intersection], axis=-1)


def near_contours(
    classes: UInt8[np.ndarray, "h w"], *, distance: int
) -> Bool[np.ndarray, "h w"]:
    """Mark the pixels within `distance` pixels of another class.

    These are the boundary regions of all classes at once: a pixel is outside if the
    smallest and the largest value around it are equal. The edge of the image belongs to
    the contours, as in the authors' code.
    """
    square = np.ones((3, 3), np.uint8)
    border = {"iterations": distance, "borderType": cv2.BORDER_CONSTANT}
    smallest = cv2.erode(classes, square, **border, borderValue=0)
    largest = cv2.dilate(classes, square, **border, borderValue=255)
    return smallest != largest


def boundary_iou(sums: Int[np.ndarray, "k 2"]) -> Float[np.ndarray, "k"]:
    """Return the boundary IoU of each class, 0 to 1; NaN if the class never occurs."""
    intersection, union = sums.T
    return np.divide(
        intersection, union, out=np.full(len(sums), np.nan), where=union > 0
    )
