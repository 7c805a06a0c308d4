import math
import warnings

import numpy as np
import pytest
import scipy.stats

from tempseg_jax.evaluation import metrics
from tempseg_jax.sweep.report import statistics

A = {0: 0.61, 1: 0.64, 2: 0.60, 3: 0.66, 4: 0.63}
B = {0: 0.60, 1: 0.61, 2: 0.60, 3: 0.64, 4: 0.64}


def random_confusions(rng, images=40, classes=4):
    confusion = rng.integers(0, 50, (images, classes, classes))
    return confusion + 200 * np.eye(classes, dtype=int)


def test_mean_and_sample_standard_deviation():
    assert statistics.mean_std([1.0, 2.0, 3.0]) == (2.0, 1.0)


def test_one_seed_has_no_standard_deviation():
    mean, std = statistics.mean_std([0.5])
    assert mean == 0.5 and math.isnan(std)


def test_a_mean_of_no_values_is_refused():
    with pytest.raises(ValueError, match="empty"):
        statistics.mean_std([])


def test_the_paired_interval_is_students_t():
    differences = np.subtract(list(A.values()), list(B.values()))
    error = differences.std(ddof=1) / math.sqrt(5)
    t = 2.7764451051977987  # 97.5 % quantile for 4 degrees of freedom
    interval = statistics.paired_difference(A, B)
    expected = [0.01 - t * error, 0.01, 0.01 + t * error]
    np.testing.assert_allclose(
        [interval.low, interval.difference, interval.high], expected, rtol=1e-12
    )
    assert interval.count == 5
    assert interval.excludes_zero == (statistics.p_value(A, B) < 0.05)


def test_equal_differences_have_an_interval_of_zero_width_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = statistics.paired_difference({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
        assert interval == (1.0, 1.0, 1.0, 2) and interval.excludes_zero
        interval = statistics.paired_difference(A, A)
        assert interval == (0.0, 0.0, 0.0, 5) and not interval.excludes_zero


def test_two_seeds_have_the_closed_form_of_the_cauchy_distribution():
    # t with one degree of freedom: its 97.5 % quantile is tan(0.475 π).
    interval = statistics.paired_difference({0: 3.0, 1: 5.0}, {0: 0.0, 1: 0.0})
    assert interval.high == pytest.approx(4 + math.tan(0.475 * math.pi))


def test_only_common_seeds_are_compared():
    interval = statistics.paired_difference(A | {9: 100.0}, B | {8: -100.0})
    assert interval == statistics.paired_difference(A, B)
    assert statistics.paired_difference({1: 0.5}, {2: 0.5}) is None


def test_one_seed_has_a_difference_but_no_interval():
    interval = statistics.paired_difference({0: 2.0}, {0: 1.5})
    assert (
        interval.difference == 0.5
        and not interval.has_bounds
        and not interval.excludes_zero
    )


def test_the_p_value_is_that_of_the_paired_t_test():
    differences = np.subtract(list(A.values()), list(B.values()))
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(5))
    expected = 2 * scipy.stats.t.sf(abs(t), 4)
    assert statistics.p_value(A, B) == pytest.approx(expected)
    assert statistics.p_value({0: 1.0}, {0: 2.0, 1: 2.0}) is None


def test_equal_differences_have_a_p_value_of_zero_or_one():
    assert statistics.p_value(A, A) == 1
    assert statistics.p_value({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0}) == 0


def test_holms_p_values_have_their_closed_form():
    # Sorted: 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never below the previous one.
    assert statistics.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx(
        [0.06, 0.04, 0.06, 0.06]
    )
    assert statistics.holm([0.5, 0.9]) == [1, 1]
    assert statistics.holm([]) == []


def test_holm_rejects_the_same_hypotheses_as_the_step_down_procedure():
    p = np.random.default_rng(0).beta(0.3, 2, (200, 7))
    for row in p:
        rejected = np.zeros(7, bool)
        for i, index in enumerate(
            np.argsort(row)
        ):  # from the smallest, until one is kept
            if row[index] > 0.05 / (7 - i):
                break
            rejected[index] = True
        np.testing.assert_array_equal(
            np.array(statistics.holm(row.tolist())) <= 0.05, rejected
        )


@pytest.mark.parametrize(
    "low, high, excludes",
    [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.2, False), (0.0, 0.2, False)],
)
def test_an_interval_excludes_zero_on_either_side(low, high, excludes):
    assert statistics.Interval(0.0, low, high, 3).excludes_zero == excludes


def test_the_difference_of_the_bootstrap_is_that_of_the_summed_matrices():
    rng = np.random.default_rng(0)
    a, b = ({s: random_confusions(rng) for s in range(3)} for _ in range(2))
    interval = statistics.bootstrap_difference(a, b, resamples=10)
    expected = np.mean(
        [
            metrics.scores(a[s].sum(0))["miou"] - metrics.scores(b[s].sum(0))["miou"]
            for s in a
        ]
    )
    assert interval.difference == pytest.approx(expected, abs=1e-12)


def test_the_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(1)
    a, b = random_confusions(rng), random_confusions(rng)

    def difference(index):
        scores = (metrics.scores(x[index].sum(0))["miou"] for x in (a, b))
        return next(scores) - next(scores)

    expected = scipy.stats.bootstrap(
        (np.arange(len(a)),),
        difference,
        vectorized=False,
        method="percentile",
        n_resamples=1000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    interval = statistics.bootstrap_difference({0: a}, {0: b}, resamples=4000)
    width = expected.high - expected.low
    # Two independent sets of resamples: quantiles agree to a few hundredths.
    np.testing.assert_allclose(interval[1:3], expected, atol=0.08 * width)


def test_the_bootstrap_of_a_mean_has_its_standard_error():
    # Images of 100 pixels of class 0: its IoU is the mean of the images' shares of
    # correct pixels, with standard error s / sqrt(n), and the IoU of class 1 is zero.
    rng = np.random.default_rng(3)
    correct = rng.binomial(100, 0.8, 400)
    a = np.zeros((400, 2, 2), int)
    a[:, 0, 0], a[:, 0, 1] = correct, 100 - correct
    b = np.zeros((400, 2, 2), int)
    b[:, 0, 0], b[:, 0, 1] = 80, 20
    interval = statistics.bootstrap_difference({0: a}, {0: b}, resamples=4000)
    error = np.std(correct / 100) / math.sqrt(400) / 2
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)


@pytest.mark.parametrize("images, block", [(12, 3), (13, 5), (7, 3), (9, 1)])
def test_a_resample_has_as_many_images_in_blocks_of_neighbors(images, block):
    weights = statistics._resample_weights(images, block=block, seed=5, resamples=20)
    rng = np.random.default_rng(5)
    lengths = [block] * (images // block), [images % block] * (images % block > 0)
    expected = np.zeros((20, images), int)
    for group in lengths:
        if not group:
            continue
        starts = rng.multinomial(len(group), [1 / images] * images, size=20)
        for resample, start in np.ndindex(20, images):
            for step in range(group[0]):
                expected[resample, (start + step) % images] += starts[resample, start]
    np.testing.assert_array_equal(weights, expected)
    assert np.all(weights.sum(axis=1) == images)


def test_blocks_of_equal_frames_have_the_error_of_independent_videos():
    # Ten videos of ten equal frames: as wide as for one frame of each video.
    rng = np.random.default_rng(7)
    single = [random_confusions(rng, images=10) for _ in range(2)]
    repeated = [np.repeat(x, 10, axis=0) for x in single]

    def width(a, b, block):
        interval = statistics.bootstrap_difference(
            {0: a}, {0: b}, block=block, resamples=4000
        )
        return interval.high - interval.low

    expected = width(*single, 1)
    assert width(*repeated, 1) == pytest.approx(expected / math.sqrt(10), rel=0.1)
    # Blocks that start inside a video mix two, so the error is a little smaller.
    assert 0.75 * expected < width(*repeated, 10) < expected


def test_a_block_longer_than_half_the_images_is_refused():
    a = random_confusions(np.random.default_rng(8), images=9)
    for block in (0, 5):
        with pytest.raises(
            ValueError, match=f"--block: {block} is not between 1 and 4"
        ):
            statistics.bootstrap_difference({0: a}, {0: a}, block=block)


def test_equal_settings_have_a_bootstrap_interval_of_zero_width():
    a = random_confusions(np.random.default_rng(4))
    assert statistics.bootstrap_difference({0: a}, {0: a})[:3] == (0, 0, 0)


def test_a_class_absent_from_a_resample_is_left_out_of_its_mean():
    # Class 1 is in one of two images; without it mIoU is the IoU of class 0.
    a = np.array([[[10, 0], [0, 0]], [[10, 0], [0, 10]]])
    interval = statistics.bootstrap_difference({0: a}, {0: 0 * a + a}, resamples=50)
    assert interval[:3] == (0, 0, 0)
    weights = np.array([[2.0, 0.0], [0.0, 2.0]])
    np.testing.assert_array_equal(statistics.miou(a, weights), [1, 1])


def test_resamples_without_a_labeled_pixel_are_left_out():
    # One of two images has no labels: a quarter of the resamples consist of it alone.
    a = np.array([[[6, 4], [0, 10]], [[0, 0], [0, 0]]])
    b = np.array([[[5, 5], [0, 10]], [[0, 0], [0, 0]]])
    assert np.isnan(statistics.miou(a, np.array([[0.0, 2.0]]))).all()
    difference, low, high, _ = statistics.bootstrap_difference({0: a}, {0: b})
    expected = (6 / 10 + 10 / 14 - 5 / 10 - 10 / 15) / 2
    assert difference == low == high == pytest.approx(expected)


def test_a_single_image_has_no_interval_over_images():
    a = random_confusions(np.random.default_rng(9), images=1)
    interval = statistics.bootstrap_difference({0: a}, {0: a})
    assert interval.difference == 0 and not interval.has_bounds


def test_settings_scored_on_different_images_are_refused():
    rng = np.random.default_rng(5)
    a, b = random_confusions(rng, images=4), random_confusions(rng, images=5)
    with pytest.raises(ValueError, match="same split"):
        statistics.bootstrap_difference({0: a}, {0: b})
    assert statistics.bootstrap_difference({0: a}, {1: a}) is None


def test_the_bootstrap_is_deterministic():
    rng = np.random.default_rng(6)
    a, b = random_confusions(rng), random_confusions(rng)
    first, second = (statistics.bootstrap_difference({0: a}, {0: b}) for _ in range(2))
    assert first == second
