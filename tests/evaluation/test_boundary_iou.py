import numpy as np
import pytest

from tempseg_jax.evaluation.boundary_iou import BoundaryIoU, boundary_iou, rim
from tempseg_jax.types import IGNORE_LABEL


def slow_rim(mask, distance):
    """Pixels of the mask with something else within `distance` rows and columns."""
    h, w = mask.shape
    found = np.zeros_like(mask)
    for y in range(h):
        for x in range(w):
            around = range(-distance, distance + 1)
            leaves = any(
                not (0 <= y + i < h and 0 <= x + j < w) or not mask[y + i, x + j]
                for i in around
                for j in around
            )
            found[y, x] = mask[y, x] and leaves
    return found


def slow_boundary_iou(pairs, num_classes):
    iou = np.full(num_classes, np.nan)
    for k in range(num_classes):
        intersection = union = 0
        for label, prediction in pairs:
            distance = max(1, round(0.02 * np.sqrt(sum(n * n for n in label.shape))))
            prediction = prediction.copy()
            prediction[label == IGNORE_LABEL] = IGNORE_LABEL
            truth = slow_rim((label == k).astype(np.uint8), distance)
            found = slow_rim((prediction == k).astype(np.uint8), distance)
            intersection += (truth & found).sum()
            union += (truth | found).sum()
        if union:
            iou[k] = intersection / union
    return iou


def scored(pairs, num_classes):
    total = BoundaryIoU(num_classes)
    for label, prediction in pairs:
        total.add(label, prediction)
    return boundary_iou(total.sums)


def blobs(seed, shape):
    """Squares of classes on class 0, some of them void."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    for k in (1, 2, 3, IGNORE_LABEL, 2):
        top, left = rng.integers(0, shape[0] - 5), rng.integers(0, shape[1] - 5)
        size = rng.integers(3, 20)
        label[top : top + size, left : left + size] = k
    return label


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_the_rim_is_the_slow_references(distance):
    rng = np.random.default_rng(distance)
    mask = (rng.random((21, 17)) < 0.9).astype(np.uint8)
    np.testing.assert_array_equal(
        rim(mask, distance=distance), slow_rim(mask, distance)
    )


def test_boundary_iou_is_the_slow_references_over_several_images():
    pairs = []
    for seed in range(3):
        label, prediction = blobs(seed, (60, 70)), blobs(seed + 10, (60, 70))
        prediction[prediction == IGNORE_LABEL] = 0
        pairs.append((label, prediction))
    np.testing.assert_allclose(scored(pairs, 5), slow_boundary_iou(pairs, 5))
    assert np.isnan(scored(pairs, 5)[4])  # never there


def test_a_right_prediction_scores_one_whatever_it_says_of_void():
    label = blobs(4, (50, 50))
    label[20:24] = IGNORE_LABEL
    prediction = np.where(label == IGNORE_LABEL, 1, label).astype(np.uint8)
    found = scored([(label, prediction)], 4)
    np.testing.assert_array_equal(found[~np.isnan(found)], 1)


def test_nothing_is_scored_where_all_is_void():
    label = np.full((8, 8), IGNORE_LABEL, np.uint8)
    assert np.isnan(scored([(label, np.zeros_like(label))], 2)).all()


def test_one_pixel_is_its_own_rim():
    one = np.zeros((1, 1), np.uint8)
    assert scored([(one, one)], 2)[0] == 1
    assert scored([(one, one + 1)], 2).tolist() == [0, 0]


def test_an_outline_counts_where_the_inside_does_not():
    label = np.zeros((100, 100), np.uint8)
    label[20:80, 20:80] = 1
    prediction = label.copy()
    prediction[45:55, 45:55] = 0  # a hole far from the outline
    whole = (label & prediction).sum() / (label | prediction).sum()
    assert scored([(label, prediction)], 2)[1] < whole < 1
