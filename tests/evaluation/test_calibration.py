import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from tempseg_jax.evaluation import calibration
from tempseg_jax.evaluation.calibration import BINS, TEMPERATURE_GRID
from tempseg_jax.types import IGNORE_LABEL


def totals(log_p, labels, temperatures):
    """Return the sums over all images, in float64."""
    tally = calibration.tally(
        jnp.asarray(log_p, jnp.float32),
        jnp.asarray(labels, jnp.uint8),
        temperatures=jnp.array(temperatures, jnp.float32),
    )
    return jax.tree.map(lambda x: np.asarray(x).sum(axis=0, dtype=float), tally)


def measured(log_p, labels, temperatures=(1.0,)):
    total = totals(log_p, labels, temperatures)
    total = total._replace(
        count=total.count.astype(int), correct=total.correct.astype(int)
    )
    return calibration.calibrations(total, temperatures)


def slow_reference(log_p, labels, temperature):
    """Return NLL and ECE as in Guo et al. 2017, pixel by pixel."""
    bins = [[] for _ in range(BINS)]
    nll = []
    for row, label in zip(
        log_p.reshape(-1, log_p.shape[-1]), labels.ravel(), strict=True
    ):
        if label == IGNORE_LABEL:
            continue
        log_q = log_softmax(row.astype(np.float64) / temperature)
        nll.append(-log_q[label])
        confidence = np.exp(log_q.max())
        place = next(i for i in range(BINS) if confidence <= (i + 1) / BINS + 1e-12)
        bins[place].append((confidence, row.argmax() == label))
    n = len(nll)
    ece = sum(
        len(b) / n * abs(np.mean([c for c, _ in b]) - np.mean([r for _, r in b]))
        for b in bins
        if b
    )
    return np.mean(nll), ece


def random_case(seed, shape=(2, 9, 11), k=5):
    rng = np.random.default_rng(seed)
    log_p = log_softmax(3 * rng.normal(size=(*shape, k)), axis=-1).astype(np.float32)
    labels = rng.integers(0, k, shape).astype(np.uint8)
    labels[rng.random(shape) < 0.2] = IGNORE_LABEL
    return log_p, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_nll_and_ece_are_those_of_a_loop_over_pixels(temperature):
    log_p, labels = random_case(0)
    (result,) = measured(log_p, labels, (temperature,))
    nll, ece = slow_reference(log_p, labels, temperature)
    assert result.nll == pytest.approx(nll, rel=1e-5)
    assert result.ece == pytest.approx(ece, rel=1e-4)
    assert result.count.sum() == (labels != IGNORE_LABEL).sum()


def test_one_scored_pixel_and_no_scored_pixel():
    log_p = np.log(np.array([0.8, 0.2], np.float32)).reshape(1, 1, 1, 2)
    (result,) = measured(log_p, np.full((1, 1, 1), 1, np.uint8))
    assert result.ece == pytest.approx(0.8, rel=1e-6)
    assert result.nll == pytest.approx(-np.log(0.2), rel=1e-6)
    (result,) = measured(log_p, np.full((1, 1, 1), IGNORE_LABEL, np.uint8))
    assert np.isnan(result.ece) and np.isnan(result.nll)


def test_certain_predictions_are_calibrated_if_correct_and_not_if_wrong():
    log_p = np.full((1, 4, 4, 2), [0.0, -200.0], np.float32)
    assert measured(log_p, np.zeros((1, 4, 4), np.uint8))[0].ece == 0
    assert measured(log_p, np.ones((1, 4, 4), np.uint8))[0].ece == 1


def test_sums_do_not_depend_on_how_images_are_batched():
    log_p, labels = random_case(1)
    whole = totals(log_p, labels, (0.5, 1.0))
    parts = [totals(log_p[i : i + 1], labels[i : i + 1], (0.5, 1.0)) for i in (0, 1)]
    for a, b, c in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(a, b + c, rtol=1e-6)


def test_millions_of_pixels_do_not_drift():
    """A sequential sum in float32 would be wrong in the second digit.

    How XLA groups the sum depends on its version: without its optimizations, as in
    these tests, the error is 7e-7 with jax 0.10.2 and 1.1e-5 with 0.10.0.
    """
    log_p = jnp.full((1, 2048, 2048, 2), jnp.log(jnp.array([0.95, 0.05])))
    (result,) = measured(log_p, np.zeros((1, 2048, 2048), np.uint8))
    assert result.count.sum() == 2048**2
    assert result.confidence[-1] == pytest.approx(0.95, rel=2e-5)
    assert result.nll == pytest.approx(-np.log(0.95), rel=2e-5)


def test_the_slope_is_the_derivative_with_respect_to_one_over_t():
    log_p, labels = random_case(2)
    beta, step = 0.8, 1e-2
    lower, middle, upper = (
        totals(log_p, labels, (1 / b,)) for b in (beta - step, beta, beta + step)
    )
    difference = (upper.nll - lower.nll) / (2 * step)
    np.testing.assert_allclose(middle.slope, difference, rtol=1e-3)


@pytest.mark.parametrize("true_temperature", [0.37, 1.0, 2.9])
def test_the_fitted_temperature_minimizes_the_nll(true_temperature):
    rng = np.random.default_rng(3)
    logits = 2 * rng.normal(size=(1, 60, 60, 4))
    p = np.exp(log_softmax(logits / true_temperature, axis=-1))
    draws = rng.random((1, 60, 60, 1))
    labels = (draws > p.cumsum(axis=-1)).sum(axis=-1).clip(0, 3).astype(np.uint8)
    log_p = log_softmax(logits, axis=-1)

    def nll(log_t):
        log_q = log_softmax(log_p / np.exp(log_t), axis=-1)
        return -np.take_along_axis(log_q, labels[..., None].astype(int), -1).mean()

    exact = np.exp(minimize_scalar(nll, bounds=(-2, 2), options={"xatol": 1e-8}).x)
    fitted = calibration.fit_temperature(
        totals(log_p, labels, TEMPERATURE_GRID), TEMPERATURE_GRID
    )
    assert fitted == pytest.approx(exact, rel=1e-3)
    assert fitted == pytest.approx(true_temperature, rel=0.15)


def test_no_temperature_is_fitted_to_no_pixel_or_to_a_likelihood_that_is_not_finite():
    log_p = log_softmax(np.tile([1.0, 0.0], (1, 5, 5, 1)), axis=-1)
    void = np.full((1, 5, 5), IGNORE_LABEL, np.uint8)
    with pytest.raises(ValueError, match="no pixel is labeled"):
        calibration.fit_temperature(
            totals(log_p, void, TEMPERATURE_GRID), TEMPERATURE_GRID
        )
    sums = totals(log_p, np.zeros((1, 5, 5), np.uint8), TEMPERATURE_GRID)
    infinite = sums._replace(nll=np.full_like(sums.nll, np.inf))
    with pytest.raises(ValueError, match="likelihood is not finite"):
        calibration.fit_temperature(infinite, TEMPERATURE_GRID)


def test_the_fitted_temperature_stays_on_the_grid():
    log_p = log_softmax(np.tile([1.0, 0.0], (1, 5, 5, 1)), axis=-1)
    right = np.zeros((1, 5, 5), np.uint8)
    sums = totals(log_p, right, TEMPERATURE_GRID)
    assert calibration.fit_temperature(sums, TEMPERATURE_GRID) == pytest.approx(0.1)
