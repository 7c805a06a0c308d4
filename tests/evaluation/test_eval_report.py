"""The scores that `--mode=eval` prints and writes."""

import numpy as np
import pytest

from tempseg_jax.data.catalog import Split
from tempseg_jax.data.labels import CITYSCAPES_CLASSES
from tempseg_jax.evaluation import calibration, eval_report
from tempseg_jax.evaluation.evaluator import Sums
from tempseg_jax.evaluation.result import Result


def test_for_cityscapes_both_mean_ious_are_printed_with_their_names():
    confusion = np.random.default_rng(0).integers(1, 9, (19, 19))
    bins = (1, calibration.BINS)
    tally = calibration.Tally(
        *np.zeros((2, 1)), *np.zeros((2, *bins), np.int64), np.zeros(bins)
    )
    result = Result(Sums(1, confusion, tally), {"one": 1.0}, [], 1.0)
    split = Split(
        "cityscapes", "val", [], CITYSCAPES_CLASSES, np.zeros((19, 3), np.uint8)
    )
    numbers = eval_report.numbers(result, split, np.full(19, np.nan))
    assert numbers["cityscapes_official_miou"] == pytest.approx(numbers["miou"])
    assert np.isnan(numbers["boundary_iou"])
    (_, line) = eval_report._more_lines(numbers)
    assert (
        "official script (labelIds)" in line and "confusion matrix (trainIds)" in line
    )
