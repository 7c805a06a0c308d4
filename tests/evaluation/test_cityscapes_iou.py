import numpy as np
import pytest

from tempseg_jax.data.labels import CITYSCAPES_LABEL_IDS
from tempseg_jax.evaluation import cityscapes_iou, metrics


def slow_official(truth, prediction):
    """Return the IoUs of evalPixelLevelSemanticLabeling.py, pixel by pixel.

    The false negatives of a class are its pixels predicted as any other id. Its false
    positives are the pixels predicted as it whose true id is another scored class.
    """
    pairs = list(zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    iou = []
    for class_id in CITYSCAPES_LABEL_IDS:
        tp = sum(t == p == class_id for t, p in pairs)
        fn = sum(t == class_id != p for t, p in pairs)
        fp = sum(p == class_id != t and t in CITYSCAPES_LABEL_IDS for t, p in pairs)
        iou.append(tp / (tp + fp + fn) if tp + fp + fn else np.nan)
    return np.array(iou)


def case(name):
    rng = np.random.default_rng(5)
    any_id = rng.integers(0, 34, (30, 30)).astype(np.uint8)
    other = rng.integers(0, 34, (30, 30)).astype(np.uint8)
    return {
        "random": (any_id, other),
        "right": (any_id, any_id),
        "all_ignored": (np.zeros_like(any_id), other),
        "ignored_predictions": (np.full_like(any_id, 7), np.where(any_id < 9, 4, 7)),
        "one_pixel": (any_id[:1, :1], any_id[:1, :1]),
        "absent_classes": (np.full_like(any_id, 8), np.full_like(any_id, 11)),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "random",
        "right",
        "all_ignored",
        "ignored_predictions",
        "one_pixel",
        "absent_classes",
    ],
)
def test_the_official_iou_is_that_of_a_loop_over_pixels(name):
    truth, prediction = (x.astype(np.uint8) for x in case(name))
    confusion = cityscapes_iou.label_id_confusion(truth, prediction)
    expected = slow_official(truth, prediction)
    np.testing.assert_allclose(cityscapes_iou.official_iou(confusion), expected)
    mean = np.nan if np.isnan(expected).all() else np.nanmean(expected)
    np.testing.assert_allclose(cityscapes_iou.official_miou(confusion), mean)


def test_predicting_an_ignored_id_lowers_the_official_iou_but_not_that_of_train_ids():
    truth = np.full((1, 4), 7, np.uint8)
    prediction = np.array([[7, 7, 7, 0]], np.uint8)  # road, and one unlabeled pixel
    confusion = cityscapes_iou.label_id_confusion(truth, prediction)
    assert cityscapes_iou.official_iou(confusion)[0] == 3 / 4
    over_train_ids = confusion[np.ix_(CITYSCAPES_LABEL_IDS, CITYSCAPES_LABEL_IDS)]
    assert metrics.iou_per_class(over_train_ids)[0] == 1


def test_both_ious_agree_if_no_id_is_ignored():
    confusion = np.random.default_rng(0).integers(0, 50, (19, 19))
    full = cityscapes_iou.from_train_ids(confusion)
    np.testing.assert_allclose(
        cityscapes_iou.official_iou(full), metrics.iou_per_class(confusion)
    )


def test_invalid_label_ids_and_different_sizes_are_refused():
    ids = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="labelId 255"):
        cityscapes_iou.label_id_confusion(ids, ids + 255)
    with pytest.raises(ValueError, match="size"):
        cityscapes_iou.label_id_confusion(ids, ids[:1])
