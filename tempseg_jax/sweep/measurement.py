"""The measurement of one split: scores of each image, and calibration."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tempseg_jax.evaluation import calibration
from tempseg_jax.evaluation.evaluator import PredictedImage, ScoredImage


class Measurement(NamedTuple):
    """One split, image by image; calibration at each of `t` temperatures."""

    ids: list[str]
    confusion: Int[np.ndarray, "n k k"]  # pixels by [image, ground truth, prediction]
    nats: Float[np.ndarray, "n t"]  # sum over scored pixels of -log p_T[label]
    bins: Float[np.ndarray, "t 15 3"]  # pixels, correct pixels, summed confidence

    @property
    def nll(self) -> Float[np.ndarray, "t"]:
        """Negative log-likelihood: mean over scored pixels, in nats."""
        return self.nats.sum(axis=0) / self.confusion.sum()

    @property
    def ece(self) -> Float[np.ndarray, "t"]:
        """Expected calibration error, 0 to 1: mean |accuracy - confidence| of bins."""
        return calibration.expected_error(*np.moveaxis(self.bins, -1, 0))


def collect(
    images: Iterable[ScoredImage], *, keep: frozenset[str]
) -> tuple[Measurement, list[PredictedImage]]:
    """Collect the scores of the images, and the images whose ids are in `keep`."""
    ids, confusions, nats, bins, kept = [], [], [], [], []
    for predicted, confusion, tally in images:
        ids.append(predicted.id)
        confusions.append(confusion)
        nats.append(tally.nll)
        bins.append(np.stack([tally.count, tally.correct, tally.confidence], axis=-1))
        if predicted.id in keep:
            kept.append(predicted.copied())
    measurement = Measurement(ids, np.array(confusions), np.array(nats), sum(bins))
    return measurement, kept
