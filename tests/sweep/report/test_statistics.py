import math

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


def test_mean_and_sample_deviation():
    assert statistics.spread([1.0, 2.0, 3.0]) == (2.0, 1.0, 3)


def test_one_seed_has_no_deviation():
    mean, sd, count = statistics.spread([0.5])
    assert (mean, count) == (0.5, 1) and math.isnan(sd)


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="empty"):
        statistics.spread([])


def test_the_paired_interval_is_scipys():
    test = scipy.stats.ttest_rel(list(A.values()), list(B.values()))
    expected = test.confidence_interval(0.95)
    found = statistics.paired(A, B)
    np.testing.assert_allclose(found[1:3], expected, rtol=1e-12)
    assert found.difference == pytest.approx(0.01) and found.count == 5
    assert found.excludes_zero == (test.pvalue < 0.05)


def test_two_seeds_have_the_closed_form_of_the_cauchy_distribution():
    # t with one degree of freedom: its 97.5 % point is tan(0.475 π).
    found = statistics.paired({0: 3.0, 1: 5.0}, {0: 0.0, 1: 0.0})
    assert found.high == pytest.approx(4 + math.tan(0.475 * math.pi))


def test_only_common_seeds_are_compared():
    found = statistics.paired(A | {9: 100.0}, B | {8: -100.0})
    assert found == statistics.paired(A, B)
    assert statistics.paired({1: 0.5}, {2: 0.5}) is None


def test_one_seed_has_a_difference_but_no_interval():
    found = statistics.paired({0: 2.0}, {0: 1.5})
    assert found.difference == 0.5 and not found.known and not found.excludes_zero


def test_the_p_value_is_scipys():
    expected = scipy.stats.ttest_rel(list(A.values()), list(B.values())).pvalue
    assert statistics.p_value(A, B) == pytest.approx(expected)
    assert statistics.p_value({0: 1.0}, {0: 2.0, 1: 2.0}) is None


def test_differences_that_are_all_one_have_a_p_value_of_zero_or_one():
    assert statistics.p_value(A, A) == 1
    assert statistics.p_value({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0}) == 0


def test_holms_p_values_are_those_of_the_closed_form():
    # In order 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, never below the one before.
    assert statistics.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx(
        [0.06, 0.04, 0.06, 0.06]
    )
    assert statistics.holm([0.5, 0.9]) == [1, 1]
    assert statistics.holm([]) == []


def test_holm_says_yes_as_his_procedure_does():
    p = np.random.default_rng(0).beta(0.3, 2, (200, 7))
    for row in p:
        rejected = np.zeros(7, bool)
        for i, index in enumerate(np.argsort(row)):  # from the smallest, until a no
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


@pytest.mark.parametrize("metric", ["pacc", "miou"])
def test_the_bootstraps_difference_is_that_of_the_summed_matrices(metric):
    rng = np.random.default_rng(0)
    a, b = ({s: random_confusions(rng) for s in range(3)} for _ in range(2))
    found = statistics.bootstrap(a, b, metric=metric, resamples=10)
    expected = np.mean(
        [
            metrics.scores(a[s].sum(0))[metric] - metrics.scores(b[s].sum(0))[metric]
            for s in a
        ]
    )
    assert found.difference == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", ["pacc", "miou"])
def test_the_bootstrap_agrees_with_scipys(metric):
    rng = np.random.default_rng(1)
    a, b = random_confusions(rng), random_confusions(rng)

    def difference(index):
        scores = (metrics.scores(x[index].sum(0))[metric] for x in (a, b))
        return next(scores) - next(scores)

    expected = scipy.stats.bootstrap(
        (np.arange(len(a)),),
        difference,
        vectorized=False,
        method="percentile",
        n_resamples=1000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    found = statistics.bootstrap({0: a}, {0: b}, metric=metric, resamples=4000)
    width = expected.high - expected.low
    # Two independent sets of draws: their quantiles agree to a few hundredths.
    np.testing.assert_allclose(found[1:3], expected, atol=0.08 * width)


def test_the_bootstrap_of_a_mean_has_its_standard_error():
    # Images of 100 pixels: pAcc is the mean of theirs, with error s / sqrt(n).
    rng = np.random.default_rng(3)
    right = rng.binomial(100, 0.8, 400)
    a = np.zeros((400, 2, 2), int)
    a[:, 0, 0], a[:, 0, 1] = right, 100 - right
    b = np.zeros((400, 2, 2), int)
    b[:, 0, 0], b[:, 0, 1] = 80, 20
    found = statistics.bootstrap({0: a}, {0: b}, metric="pacc", resamples=4000)
    error = np.std(right / 100) / math.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


@pytest.mark.parametrize("images, block", [(12, 3), (13, 5), (7, 3), (9, 1)])
def test_a_draw_is_as_many_images_in_runs_of_neighbours(images, block):
    draws = statistics._draw(images, block=block, seed=5, resamples=20)
    rng = np.random.default_rng(5)
    lengths = [block] * (images // block), [images % block] * (images % block > 0)
    expected = np.zeros((20, images), int)
    for group in lengths:
        if not group:
            continue
        starts = rng.multinomial(len(group), [1 / images] * images, size=20)
        for draw, start in np.ndindex(20, images):
            for step in range(group[0]):
                expected[draw, (start + step) % images] += starts[draw, start]
    np.testing.assert_array_equal(draws, expected)
    assert np.all(draws.sum(axis=1) == images)


def test_blocks_of_frames_that_are_alike_have_the_error_of_their_number():
    # Ten films of ten equal frames: as wide as with the ten films alone.
    rng = np.random.default_rng(7)
    films, other = (random_confusions(rng, images=10) for _ in range(2))
    frames, others = (np.repeat(x, 10, axis=0) for x in (films, other))

    def width(a, b, block):
        found = statistics.bootstrap(
            {0: a}, {0: b}, metric="pacc", block=block, resamples=4000
        )
        return found.high - found.low

    alone = width(films, other, 1)
    assert width(frames, others, 1) == pytest.approx(alone / math.sqrt(10), rel=0.1)
    # Blocks that begin inside a film mix two: the error is a little smaller.
    assert 0.75 * alone < width(frames, others, 10) < alone


def test_a_block_longer_than_half_the_images_is_refused():
    a = random_confusions(np.random.default_rng(8), images=9)
    for block in (0, 5):
        with pytest.raises(
            ValueError, match=f"--block: {block} is not between 1 and 4"
        ):
            statistics.bootstrap({0: a}, {0: a}, metric="miou", block=block)


def test_images_are_paired_so_that_equal_settings_do_not_differ():
    a = random_confusions(np.random.default_rng(4))
    assert statistics.bootstrap({0: a}, {0: a}, metric="miou")[:3] == (0, 0, 0)


def test_a_class_absent_from_a_draw_is_left_out_of_its_mean():
    # Class 1 is in one image of two; a draw without it scores class 0 alone.
    a = np.array([[[10, 0], [0, 0]], [[10, 0], [0, 10]]])
    found = statistics.bootstrap({0: a}, {0: 0 * a + a}, metric="miou", resamples=50)
    assert found[:3] == (0, 0, 0)
    weights = np.array([[2.0, 0.0], [0.0, 2.0]])
    np.testing.assert_array_equal(statistics.METRICS["miou"](a, weights), [1, 1])


def test_settings_scored_on_different_images_are_refused():
    rng = np.random.default_rng(5)
    a, b = random_confusions(rng, images=4), random_confusions(rng, images=5)
    with pytest.raises(ValueError, match="same split"):
        statistics.bootstrap({0: a}, {0: b}, metric="miou")
    assert statistics.bootstrap({0: a}, {1: a}, metric="miou") is None


def test_the_same_draws_every_time():
    rng = np.random.default_rng(6)
    a, b = random_confusions(rng), random_confusions(rng)
    found = [statistics.bootstrap({0: a}, {0: b}, metric="miou") for _ in range(2)]
    assert found[0] == found[1]
