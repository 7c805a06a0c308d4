import threading

import numpy as np
import pytest

from tempseg_jax.evaluation import boundary_iou as boundary_iou_module
from tempseg_jax.evaluation.boundary_iou import (
    BoundaryIoU,
    boundary_iou,
    near_contours,
)
from tempseg_jax.types import IGNORE_LABEL


def slow_region(mask, distance):
    """Return the mask's pixels with another value within `distance` rows and columns.

    Everything outside the image counts as another value.
    """
    h, w = mask.shape
    region = np.zeros_like(mask)
    for y in range(h):
        for x in range(w):
            around = range(-distance, distance + 1)
            leaves = any(
                not (0 <= y + i < h and 0 <= x + j < w) or not mask[y + i, x + j]
                for i in around
                for j in around
            )
            region[y, x] = mask[y, x] and leaves
    return region


def slow_boundary_iou(pairs, num_classes):
    iou = np.full(num_classes, np.nan)
    for k in range(num_classes):
        intersection = union = 0
        for label, prediction in pairs:
            distance = max(1, round(0.02 * np.sqrt(sum(n * n for n in label.shape))))
            prediction = prediction.copy()
            prediction[label == IGNORE_LABEL] = IGNORE_LABEL
            truth = slow_region((label == k).astype(np.uint8), distance)
            predicted = slow_region((prediction == k).astype(np.uint8), distance)
            intersection += (truth & predicted).sum()
            union += (truth | predicted).sum()
        if union:
            iou[k] = intersection / union
    return iou


def scored(pairs, num_classes):
    with BoundaryIoU.in_threads(num_classes, 2) as total:
        for label, prediction in pairs:
            total.add(label, prediction)
        return boundary_iou(total.sums())


def blobs(seed, shape):
    """Return squares of several classes and of ignored pixels on class 0."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    for k in (1, 2, 3, IGNORE_LABEL, 2):
        top, left = rng.integers(0, shape[0] - 5), rng.integers(0, shape[1] - 5)
        size = rng.integers(3, 20)
        label[top : top + size, left : left + size] = k
    return label


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_the_boundary_region_is_that_of_the_slow_reference(distance):
    rng = np.random.default_rng(distance)
    mask = (rng.random((21, 17)) < 0.9).astype(np.uint8)
    np.testing.assert_array_equal(
        mask & near_contours(mask, distance=distance), slow_region(mask, distance)
    )


def test_boundary_iou_is_that_of_the_slow_reference_over_several_images():
    pairs = []
    for seed in range(8):  # more than wait at once
        label, prediction = blobs(seed, (60, 70)), blobs(seed + 10, (60, 70))
        prediction[prediction == IGNORE_LABEL] = 0
        pairs.append((label, prediction))
    np.testing.assert_allclose(scored(pairs, 5), slow_boundary_iou(pairs, 5))
    assert np.isnan(scored(pairs, 5)[4])  # class 4 does not occur


def test_images_are_counted_in_other_threads_and_few_of_them_wait(monkeypatch):
    threads, most = set(), 0
    count = boundary_iou_module.count_boundaries

    def recording_count(*arguments, **options):
        threads.add(threading.get_ident())
        return count(*arguments, **options)

    monkeypatch.setattr(boundary_iou_module, "count_boundaries", recording_count)
    label = blobs(0, (40, 40))
    with BoundaryIoU.in_threads(5, 1) as total:
        for _ in range(9):
            total.add(label, label)
            most = max(most, len(total._running))
        sums = total.sums()
    assert threads and threading.get_ident() not in threads
    assert most <= 2
    np.testing.assert_array_equal(sums, 9 * count(label, label, num_classes=5))


def test_an_error_in_a_thread_is_raised(monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError("no memory")

    monkeypatch.setattr(boundary_iou_module, "count_boundaries", fail)
    label = blobs(0, (40, 40))
    with BoundaryIoU.in_threads(5, 1) as total:
        total.add(label, label)
        with pytest.raises(MemoryError, match="no memory"):
            total.sums()


def test_a_correct_prediction_scores_one_with_any_values_at_ignored_pixels():
    label = blobs(4, (50, 50))
    label[20:24] = IGNORE_LABEL
    prediction = np.where(label == IGNORE_LABEL, 1, label).astype(np.uint8)
    iou = scored([(label, prediction)], 4)
    np.testing.assert_array_equal(iou[:4], 1)


def test_an_image_of_ignored_pixels_has_no_score():
    label = np.full((8, 8), IGNORE_LABEL, np.uint8)
    assert np.isnan(scored([(label, np.zeros_like(label))], 2)).all()


def test_a_single_pixel_is_its_own_boundary_region():
    one = np.zeros((1, 1), np.uint8)
    assert scored([(one, one)], 2)[0] == 1
    assert scored([(one, one + 1)], 2).tolist() == [0, 0]


def test_an_error_far_from_the_contour_adds_a_contour():
    label = np.zeros((100, 100), np.uint8)
    label[20:80, 20:80] = 1
    prediction = label.copy()
    prediction[45:55, 45:55] = 0  # a hole far from the contour
    whole = (label & prediction).sum() / (label | prediction).sum()
    assert scored([(label, prediction)], 2)[1] < whole < 1
