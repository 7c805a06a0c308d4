"""Means over seeds, and two intervals for a difference: over seeds, over images."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Num

LEVEL = 0.95
RESAMPLES = 2000


class Spread(NamedTuple):
    """Mean and standard deviation (of a sample: n - 1) over seeds."""

    mean: float
    sd: float  # NaN for a single seed
    count: int


class Interval(NamedTuple):
    """A difference and its 95 % interval."""

    difference: float
    low: float
    high: float
    count: int  # seeds compared

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign of the difference is told; no if there is no interval."""
        return self.low > 0 or self.high < 0

    @property
    def known(self) -> bool:
        """Whether there is an interval: one seed gives a difference alone."""
        return math.isfinite(self.low)


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation.

    Raises:
        ValueError: there is no value.
    """
    if not len(values):
        raise ValueError("values: empty, so there is no mean; give at least one")
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(np.mean(values)), sd, len(values))


def paired(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> Interval | None:
    """Compare by seed: mean of the differences, Student's t interval.

    It says what other seeds would give on the same images. None without a common seed.
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        return None
    differences = np.array([values[seed] - reference[seed] for seed in seeds])
    mean, count = float(differences.mean()), len(seeds)
    if count == 1:
        return Interval(mean, math.nan, math.nan, 1)
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, count - 1)) * error
    return Interval(mean, mean - half, mean + half, count)


def bootstrap(
    confusions: Mapping[int, Int[np.ndarray, "n k k"]],
    reference: Mapping[int, Int[np.ndarray, "n_reference k k"]],
    *,
    metric: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Compare by image: percentile interval over images drawn with replacement.

    Each draw takes the same images for every seed of both settings, scores each run's
    summed confusion matrix, and averages the differences over the common seeds. It
    says what other images would give with the same models. None without a common seed.

    Args:
        confusions: by seed, one matrix an image, in the same order everywhere.
        reference: likewise, of the setting compared with.
        metric: `pacc` or `miou`.
        seed: of the draws.
        resamples: their number.

    Raises:
        ValueError: the settings were scored on different numbers of images.
    """
    seeds = sorted(confusions.keys() & reference.keys())
    if not seeds:
        return None
    counts = {len(c) for s in seeds for c in (confusions[s], reference[s])}
    if len(counts) > 1:
        raise ValueError(
            f"confusions: scored on {sorted(counts)} images, so they cannot be paired; "
            "score all runs on the same split"
        )
    (images,) = counts
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    weights = np.concatenate([np.ones((1, images)), draws])  # the first is no draw
    score = METRICS[metric]
    differences = np.mean(
        [score(confusions[s], weights) - score(reference[s], weights) for s in seeds],
        axis=0,
    )
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(differences[1:], [tail, 1 - tail])
    return Interval(float(differences[0]), float(low), float(high), len(seeds))


def _pacc(
    confusion: Int[np.ndarray, "n k k"], weights: Num[np.ndarray, "r n"]
) -> Float[np.ndarray, "r"]:
    right = np.trace(confusion, axis1=1, axis2=2)
    return (weights @ right) / (weights @ confusion.sum(axis=(1, 2)))


def _miou(
    confusion: Int[np.ndarray, "n k k"], weights: Num[np.ndarray, "r n"]
) -> Float[np.ndarray, "r"]:
    """Classes in neither truth nor prediction of a draw are left out of its mean."""
    right = np.diagonal(confusion, axis1=1, axis2=2)
    union = confusion.sum(axis=1) + confusion.sum(axis=2) - right
    right, union = weights @ right, weights @ union
    present = union > 0
    iou = np.divide(right, union, out=np.zeros_like(right), where=present)
    return iou.sum(axis=1) / present.sum(axis=1)


METRICS = {"pacc": _pacc, "miou": _miou}
