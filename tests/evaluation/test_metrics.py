import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tempseg_jax.evaluation import metrics
from tempseg_jax.types import IGNORE_LABEL

CONFUSION = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]], np.int64)


@pytest.mark.parametrize("num_classes", [2, 11, 19, 21, 150])
@pytest.mark.parametrize("label_type", [np.uint8, np.int32])
def test_confusion_matrix_counts_like_a_loop_over_pixels(num_classes, label_type):
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, (3, 20, 20)).astype(label_type)
    labels[rng.random(labels.shape) < 0.3] = IGNORE_LABEL
    predictions = rng.integers(0, num_classes, labels.shape).astype(np.int32)
    expected = np.zeros((num_classes, num_classes), np.int64)
    for truth, guess in zip(labels.ravel(), predictions.ravel(), strict=True):
        if truth != IGNORE_LABEL:
            expected[truth, guess] += 1
    counts = metrics.confusion_matrix(
        jnp.array(labels), jnp.array(predictions), num_classes=num_classes
    )
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum() == (labels != IGNORE_LABEL).sum()


def test_confusion_matrix_refuses_predictions_of_another_shape():
    with pytest.raises(TypeCheckError):
        metrics.confusion_matrix(
            jnp.zeros((2, 3), jnp.uint8), jnp.zeros((3, 2), jnp.int32), num_classes=4
        )


def test_perfect_predictions_score_one():
    scores = metrics.scores(np.diag([5, 1, 7]).astype(np.int64))
    assert scores == {"pacc": 1.0, "miou": 1.0, "macc": 1.0, "fwiou": 1.0}


def test_scores_follow_their_definitions_without_absent_classes():
    scores = metrics.scores(CONFUSION)
    np.testing.assert_allclose(scores["pacc"], 9 / 12)
    np.testing.assert_allclose(scores["miou"], (6 / 9 + 3 / 6) / 2)
    np.testing.assert_allclose(scores["macc"], (6 / 8 + 3 / 4) / 2)
    np.testing.assert_allclose(scores["fwiou"], (8 * 6 / 9 + 4 * 3 / 6) / 12)


def test_iou_is_nan_only_for_a_class_in_neither_labels_nor_predictions():
    np.testing.assert_allclose(
        metrics.iou_per_class(CONFUSION), [6 / 9, 3 / 6, np.nan], equal_nan=True
    )
    predicted_only = CONFUSION.copy()
    predicted_only[0, 2] = 1
    assert metrics.iou_per_class(predicted_only)[2] == 0
    # The class has no ground truth, so it has an IoU but no class accuracy.
    scores = metrics.scores(predicted_only)
    np.testing.assert_allclose(scores["miou"], (6 / 10 + 3 / 6 + 0) / 3)
    np.testing.assert_allclose(scores["macc"], (6 / 9 + 3 / 4) / 2)


def test_scores_of_an_empty_confusion_matrix_are_nan_without_a_warning():
    scores = metrics.scores(np.zeros((3, 3), np.int64))
    assert set(scores) == {"pacc", "miou", "macc", "fwiou"}
    assert all(np.isnan(value) for value in scores.values())


def test_scores_do_not_overflow_over_a_whole_dataset():
    # 500 images of 2048 x 1024 are 2³⁰ pixels; 2⁴⁰ does not fit 32 bits.
    scores = metrics.scores(np.full((2, 2), 2**40, np.int64))
    np.testing.assert_allclose(scores["miou"], 1 / 3)
    np.testing.assert_allclose(scores["pacc"], 1 / 2)
