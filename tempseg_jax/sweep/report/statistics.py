"""Means over seeds, and confidence intervals of differences over seeds and images."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Num

LEVEL = 0.95
RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean difference and its 95 % confidence interval."""

    difference: float
    low: float  # NaN if there is no interval
    high: float  # NaN if there is no interval
    count: int  # number of seeds compared

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval; False if there is no interval."""
        return self.low > 0 or self.high < 0

    @property
    def has_bounds(self) -> bool:
        """Whether there is an interval; a single seed gives only a difference."""
        return math.isfinite(self.low)


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (divisor n - 1).

    The standard deviation of a single value is NaN.

    Raises:
        ValueError: If there is no value.
    """
    if not len(values):
        raise ValueError("values: empty, so there is no mean; give at least one value")
    std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return float(np.mean(values)), std


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> Interval | None:
    """Return the mean paired difference over seeds with its Student's t interval.

    The interval estimates how the difference varies with the seed, on the same images.

    Args:
        values: Scores by seed.
        reference: Scores by seed of the setting to compare with. Only seeds in both
            mappings are compared.

    Returns:
        The difference and its confidence interval, without bounds for a single common
        seed, or None if there is no common seed.
    """
    a, b = _common_seeds(values, reference)
    if not a:
        return None
    difference = float(np.mean(np.subtract(a, b)))
    if len(a) == 1:
        return Interval(difference, math.nan, math.nan, 1)
    low, high = _t_test(a, b).confidence_interval(LEVEL)
    return Interval(difference, float(low), float(high), len(a))


def p_value(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> float | None:
    """Return the two-sided p-value of the paired t-test over seeds.

    None if there are fewer than two common seeds. If all differences are equal, the
    p-value is 1 where they are zero and 0 otherwise.
    """
    a, b = _common_seeds(values, reference)
    if len(a) < 2:
        return None
    p = float(_t_test(a, b).pvalue)
    return 1.0 if math.isnan(p) else p  # all differences are zero, so t is 0 / 0


def _common_seeds(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> tuple[list[float], list[float]]:
    seeds = sorted(values.keys() & reference.keys())
    return [values[seed] for seed in seeds], [reference[seed] for seed in seeds]


def _t_test(a: Sequence[float], b: Sequence[float]) -> Any:  # scipy's TtestResult
    with warnings.catch_warnings():
        # scipy warns if all differences are equal, as for a class whose IoU is 0 in
        # every run; the interval then has zero width, which is correct.
        warnings.simplefilter("ignore", RuntimeWarning)
        return scipy.stats.ttest_rel(a, b)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons (Holm 1979), in the given order.

    Controls the family-wise error rate for any dependence between the tests.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted.tolist()


def bootstrap_difference(
    confusions: Mapping[int, Int[np.ndarray, "n k k"]],
    reference: Mapping[int, Int[np.ndarray, "n_reference k k"]],
    *,
    block: int = 1,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Return the mean difference in mIoU with a bootstrap interval over images.

    Each resample uses the same images for every seed of both settings, computes the
    mIoU from each run's summed confusion matrix, and averages the differences over
    the common seeds. The percentile interval estimates how the difference between
    these trained models varies with the images; it ignores the variation over seeds.

    Args:
        confusions: One confusion matrix per image, by seed. The order of the images is
            the same for every run.
        reference: The same for the setting to compare with.
        block: Number of neighboring images that are resampled together. Blocks wrap
            around the end (circular block bootstrap, Politis & Romano 1992). Use it
            for frames of a video, which are not independent.
        seed: Seed of the random number generator.
        resamples: Number of bootstrap resamples.

    Returns:
        The difference and its confidence interval, or None if there is no common seed.
        There are no bounds for a single image. Resamples without a labeled pixel are
        left out.

    Raises:
        ValueError: If the runs were evaluated on different numbers of images, or if
            there are fewer than two blocks of several images.
    """
    seeds = sorted(confusions.keys() & reference.keys())
    if not seeds:
        return None
    counts = {len(c) for s in seeds for c in (confusions[s], reference[s])}
    if len(counts) > 1:
        raise ValueError(
            f"confusions: the runs were evaluated on {sorted(counts)} images, so they "
            "cannot be paired; evaluate all runs on the same split"
        )
    (images,) = counts
    resampled = _resample_weights(images, block=block, seed=seed, resamples=resamples)
    weights = np.concatenate([np.ones((1, images)), resampled])  # first: every image
    differences = np.mean(
        [miou(confusions[s], weights) - miou(reference[s], weights) for s in seeds],
        axis=0,
    )
    scored = differences[1:][np.isfinite(differences[1:])]
    tail = (1 - LEVEL) / 2
    low = high = math.nan
    if images > 1 and len(scored):
        low, high = np.quantile(scored, [tail, 1 - tail])
    return Interval(float(differences[0]), float(low), float(high), len(seeds))


def _resample_weights(
    images: int, *, block: int, seed: int, resamples: int
) -> Int[np.ndarray, "r n"]:
    """Return how often each resample contains each image; a row sums to `images`."""
    if not 1 <= block <= max(1, images // 2):
        raise ValueError(
            f"--block: {block} is not between 1 and {images // 2}, half of the "
            f"{images} images of a split, so there are fewer than two blocks to "
            "resample; give a smaller number"
        )
    rng = np.random.default_rng(seed)
    uniform = np.full(images, 1 / images)  # probability that a block starts at an image
    whole, rest = divmod(images, block)
    starts = rng.multinomial(whole, uniform, size=resamples)
    weights = sum(np.roll(starts, i, axis=1) for i in range(block))
    if rest:  # the last block is shorter
        start = rng.multinomial(1, uniform, size=resamples)
        weights += sum(np.roll(start, i, axis=1) for i in range(rest))
    return weights


def miou(
    confusion: Int[np.ndarray, "n k k"], weights: Num[np.ndarray, "r n"]
) -> Float[np.ndarray, "r"]:
    """Return the mIoU of each resample, NaN if none of its pixels has a label.

    It is the average over the classes that occur in the labels or predictions.

    Args:
        confusion: One confusion matrix per image.
        weights: How often each resample contains each image.
    """
    correct = np.diagonal(confusion, axis1=1, axis2=2)
    union = confusion.sum(axis=1) + confusion.sum(axis=2) - correct
    correct, union = weights @ correct, weights @ union
    present = union > 0
    iou = np.divide(correct, union, out=np.zeros_like(correct), where=present)
    count = present.sum(axis=1)
    return np.where(count > 0, iou.sum(axis=1) / np.maximum(count, 1), np.nan)
