import dataclasses
import functools
import io

import cv2
import numpy as np
import pytest

from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import calibration, result
from tempseg_jax.evaluation.evaluator import PredictedImage, ScoredImage, Sums
from tempseg_jax.inference.settings import DEFAULT_SETTINGS
from tempseg_jax.workdir.metrics_writer import Writer
from tests.support import make_segmenter

CONFUSION = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]], np.int64)
SPLIT = Split(
    "tiny",
    "val",
    [],
    ("ground", "stone", "brick"),
    np.array([(10, 20, 30), (200, 100, 0), (0, 0, 250)], np.uint8),
)


def make_result(*, confusion=CONFUSION, examples=()):
    bins = (2, calibration.BINS)
    count = np.zeros(bins, np.int64)
    count[:, -1] = confusion.sum()
    tally = calibration.Tally(
        nll=confusion.sum() * np.array([0.5, 0.25]),
        slope=np.zeros(2),
        count=count,
        correct=count // 2,
        confidence=0.75 * count,
    )
    sums = Sums(images=1, confusion=confusion, tally=tally)
    return result.Result(sums, {"one": 1.0, "t_g": 0.5}, list(examples), 0.5)


def score_images(monkeypatch, *, ids, num_examples=0, progress=""):
    """Call `score` with images of one pixel pair each, instead of a network."""
    label = np.zeros((1, 2), np.uint8)
    sums = make_result().sums
    scored = [
        ScoredImage(
            PredictedImage(name, np.zeros((1, 2, 3), np.uint8), label, label),
            sums.confusion,
            sums.tally,
        )
        for name in ids
    ]
    monkeypatch.setattr(result, "evaluate_split", lambda *a, **k: iter(scored))
    records = [{"id": name, "image": b"", "label": b""} for name in ids]
    return result.score(
        {},
        dataclasses.replace(SPLIT, examples=records),
        segmenter=make_segmenter("fcn8s"),
        batch_size=1,
        num_workers=0,
        settings=DEFAULT_SETTINGS,
        temperatures={"one": 1.0, "t_g": 0.5},
        num_examples=num_examples,
        progress=progress,
    )


def test_scores_have_the_names_of_metrics_jsonl():
    named = make_result().named(prefix="val/")
    assert set(named) == {
        *("val/pacc", "val/miou", "val/macc", "val/fwiou"),
        *("val/nll", "val/ece", "val/nll_t_g", "val/ece_t_g"),
        "val/images_per_s",
    }
    assert named["val/images_per_s"] == 2
    np.testing.assert_allclose(named["val/pacc"], 9 / 12)
    np.testing.assert_allclose(named["val/miou"], (6 / 9 + 3 / 6) / 2)
    np.testing.assert_allclose([named["val/nll"], named["val/nll_t_g"]], [0.5, 0.25])
    np.testing.assert_allclose(named["val/ece"], 0.25)


def test_the_table_lists_each_class_and_names_absent_classes():
    lines = result.table(make_result(), SPLIT).splitlines()
    assert lines[:5] == [
        "IoU on tiny val (%)",
        "  ground   66.67",
        "  stone    50.00",
        "  absent, left out of the mean: brick",
        "  pacc 75.00  miou 58.33  macc 75.00  fwiou 61.11",
    ]
    assert lines[-1] == "  1 images in 0.5 s, 2.0 images/s"


@pytest.mark.parametrize(
    "fitted, shown",
    [
        (1.5, "T = 1.5 (fitted)"),
        (0.1, "T = 0.1 (fitted, the end of its range)"),
    ],
)
def test_the_table_says_that_a_fitted_temperature_is_the_end_of_its_range(
    fitted, shown
):
    measured = make_result()._replace(temperatures={"one": 1.0, "fitted": fitted})
    assert shown in result.table(measured, SPLIT)


def test_the_table_of_a_split_with_all_classes_names_no_absent_one():
    complete = make_result(confusion=CONFUSION + 1)
    assert "absent" not in result.table(complete, SPLIT)


def test_a_split_of_ignored_pixels_has_nan_scores_in_the_table():
    empty = make_result(confusion=np.zeros((3, 3), np.int64))
    assert np.isnan(empty.scores["miou"])
    assert "miou nan" in result.table(empty, SPLIT)


def test_the_bar_counts_images_and_shows_the_miou_so_far(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    shown = functools.partial(result.tqdm, file=terminal, mininterval=0)
    monkeypatch.setattr(result, "tqdm", shown)
    done = score_images(monkeypatch, ids="abc", progress="evaluating val")
    text = terminal.getvalue()
    assert done.sums.images == 3 and "mIoU so far 58.33" in text
    assert "evaluating val" in text and "3/3" in text
    untitled = Terminal()
    monkeypatch.setattr(result, "tqdm", functools.partial(shown, file=untitled))
    score_images(monkeypatch, ids="abc")
    assert not untitled.getvalue()


def test_the_examples_are_evenly_spaced(monkeypatch):
    for ids, count, kept in (
        ("abcdefghij", 4, "acfh"),
        ("abc", 4, "abc"),
        ("abc", 0, ""),
    ):
        done = score_images(monkeypatch, ids=ids, num_examples=count)
        assert "".join(example.id for example in done.examples) == kept


@pytest.mark.parametrize("trained", [True, False])
def test_pictures_are_panels_and_curves_if_there_is_a_log(tmp_path, trained):
    if trained:
        with Writer(tmp_path, start_step=0, last_step=1) as writer:
            writer.write(1, {"train/loss_seg": 1.0})
    label = np.array([[0, 1]], np.uint8)
    example = PredictedImage("a", np.zeros((1, 2, 3), np.uint8), label, label)
    result.save_pictures(
        make_result(examples=[example]),
        SPLIT,
        tmp_path / "panels",
        workdir=tmp_path,
        curves=tmp_path / "out" / "curves.png",
    )
    panel = cv2.imread(str(tmp_path / "panels" / "a.png"))
    np.testing.assert_array_equal(panel[0, -2:, ::-1], SPLIT.palette[:2])
    assert (tmp_path / "out" / "curves.png").exists() == trained
