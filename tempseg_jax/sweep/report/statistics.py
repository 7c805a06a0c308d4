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


def p_value(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> float | None:
    """Return the two-sided p of the paired t-test; None below two common seeds."""
    seeds = sorted(values.keys() & reference.keys())
    if len(seeds) < 2:
        return None
    differences = np.array([values[seed] - reference[seed] for seed in seeds])
    if np.ptp(differences) == 0:  # then t is 0 / 0 or infinite
        return float(differences[0] == 0)
    return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, in their order (Holm 1979).

    If one says yes where they are below a level, the chance that any yes is wrong is
    at most that level, however the tests depend on one another.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted.tolist()


def bootstrap(
    confusions: Mapping[int, Int[np.ndarray, "n k k"]],
    reference: Mapping[int, Int[np.ndarray, "n_reference k k"]],
    *,
    metric: str,
    block: int = 1,
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
        block: images are drawn in runs of so many neighbors, the first following
            the last (circular block bootstrap, Politis & Romano 1992), for frames of
            films, which are not independent.
        seed: of the draws.
        resamples: their number.

    Raises:
        ValueError: the settings were scored on different numbers of images, or there
            are not two blocks of them.
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
    draws = _draw(images, block=block, seed=seed, resamples=resamples)
    weights = np.concatenate([np.ones((1, images)), draws])  # the first is no draw
    score = METRICS[metric]
    differences = np.mean(
        [score(confusions[s], weights) - score(reference[s], weights) for s in seeds],
        axis=0,
    )
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(differences[1:], [tail, 1 - tail])
    return Interval(float(differences[0]), float(low), float(high), len(seeds))


def _draw(
    images: int, *, block: int, seed: int, resamples: int
) -> Int[np.ndarray, "r n"]:
    """How often each draw has each image: as many images as there are, in blocks."""
    if not 1 <= block <= max(1, images // 2):
        raise ValueError(
            f"--block: {block} is not between 1 and {images // 2}, half of the "
            f"{images} images of a split, so that there is nothing to resample; give "
            "fewer"
        )
    rng = np.random.default_rng(seed)
    chance = np.full(images, 1 / images)  # of each image to begin a block
    whole, rest = divmod(images, block)
    starts = rng.multinomial(whole, chance, size=resamples)
    weights = sum(np.roll(starts, i, axis=1) for i in range(block))
    if rest:  # the last block is cut
        start = rng.multinomial(1, chance, size=resamples)
        weights += sum(np.roll(start, i, axis=1) for i in range(rest))
    return weights


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
