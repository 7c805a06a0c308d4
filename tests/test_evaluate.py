"""`--mode=eval`: the scores, the JSON file and the pictures."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import tempseg_jax
from tempseg_jax import builders, evaluate
from tempseg_jax.data import codec, decoder, subset
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import boundary_iou, eval_report, metrics
from tempseg_jax.evaluation.evaluator import evaluate_split
from tempseg_jax.inference.settings import DEFAULT_SETTINGS, InferenceSettings
from tempseg_jax.workdir import checkpoint_folder


@pytest.fixture
def config(demo_config):
    demo_config.eval_batch_size = 16
    return demo_config


def run(config, folder, **changes):
    """Evaluate the best checkpoint, with some arguments changed."""
    arguments = {
        "checkpoint": "best",
        "split_name": None,
        "settings": DEFAULT_SETTINGS,
        "fit": True,
    }
    return evaluate.evaluate(config, folder, **arguments | changes)


def test_an_evaluation_writes_its_scores_and_pictures(config, saved_run, capsys):
    report = run(config, saved_run)
    printed = capsys.readouterr().out
    assert "checkpoint: step 7, the best of training" in printed
    assert "scenes val, whole images" in printed
    assert "boundary IoU" in printed and "(fitted" in printed
    saved = json.loads((saved_run / "eval-val.json").read_text())
    assert saved["images"] == 64 and saved["checkpoint"] == 7
    assert saved["pacc"] == report["pacc"]
    confusion = np.array(saved["confusion"])
    assert saved["miou"] == metrics.scores(confusion)["miou"]
    assert confusion.sum() == saved["pixels"]
    calibrations = saved["calibration"]
    assert set(calibrations) == {"one", "t_g", "fitted"}
    assert calibrations["t_g"]["temperature"] == 0.5
    for measured in calibrations.values():
        assert sum(measured["count"]) == saved["pixels"]
        assert calibrations["fitted"]["nll"] <= measured["nll"] + 1e-6
    for name in ("eval-val-reliability.png", "eval-val-confusion.png"):
        assert (saved_run / name).read_bytes().startswith(b"\x89PNG")
    for pattern in ("*.partial*", ".*partial*"):
        assert not list(saved_run.glob(pattern))


def test_the_calibration_is_measured_at_the_temperature_of_training(
    config, saved_run, tmp_path
):
    config.objective.temperature_g = 2.0  # not that of the run
    shutil.copytree(saved_run, tmp_path / "run")
    report = run(config, tmp_path / "run", fit=False, limit=2)
    assert report["calibration"]["t_g"]["temperature"] == 0.5


@pytest.mark.parametrize(
    ("checkpoint", "selected"),
    [
        ("best", "the best of training, with a validation mIoU of 50.00"),
        ("latest", "the latest"),
        ("7", "as given"),
    ],
)
def test_an_evaluation_says_how_its_checkpoint_was_chosen(
    config, saved_run, capsys, checkpoint, selected
):
    report = run(config, saved_run, checkpoint=checkpoint, fit=False, limit=2)
    assert report["selected"] == selected
    assert f"checkpoint: step 7, {selected}\n" in capsys.readouterr().out


def test_without_scores_the_latest_checkpoint_is_evaluated(config, saved_run, tmp_path):
    unscored = tmp_path / "unscored"
    shutil.copytree(saved_run, unscored)
    (unscored / "checkpoints" / "7" / checkpoint_folder.SCORES).unlink()
    report = run(config, unscored, fit=False, limit=2)
    assert report["selected"].startswith("the latest, because none has been evaluated")


def test_a_damaged_log_does_not_lose_the_numbers(config, saved_run, tmp_path):
    folder = shutil.copytree(saved_run, tmp_path / "copy")
    (folder / "eval-val.json").unlink(missing_ok=True)
    (folder / "metrics.jsonl").write_text("not JSON\n")
    with pytest.raises(ValueError, match="metrics.jsonl: line 1 is not JSON"):
        run(config, folder, fit=False)
    assert json.loads((folder / "eval-val.json").read_text())["images"] == 64


def test_a_part_of_the_images_is_evenly_spaced_and_the_result_says_so(
    config, saved_run, capsys
):
    whole = saved_run / "eval-val.json"
    whole.write_text("not replaced")
    report = run(config, saved_run, fit=False, limit=3)
    assert whole.read_text() == "not replaced"
    whole.unlink()
    assert list((saved_run / "predictions" / "val-limit3").iterdir())
    assert report["images"] == 3 and report["limit"] == {"images": 3, "of": 64}
    assert "only 3 of 64 images, evenly spaced" in capsys.readouterr().out
    saved = json.loads((saved_run / "eval-val-limit3.json").read_text())
    assert saved["limit"] == report["limit"]
    with pytest.raises(ValueError, match="--limit=0: give a number of images"):
        run(config, saved_run, limit=0)


def test_boundaries_of_the_predictions_are_compared_with_the_labels(config, saved_run):
    report = run(config, saved_run, fit=False, limit=3)
    split = subset.evenly_spaced(builders.load_split(config, "val"), 3)
    predictor = tempseg_jax.load(saved_run)
    total = 0
    for record in split.examples:
        example = decoder.decode(record, split=split)
        total += boundary_iou.count_boundaries(
            example["label"], predictor(example["image"]), num_classes=8
        )
    expected = boundary_iou.boundary_iou(total)
    np.testing.assert_array_equal([*report["class_boundary_iou"].values()], expected)
    assert report["boundary_iou"] == np.nanmean(expected)


def test_an_evaluation_in_another_folder_leaves_the_workdir_as_it_is(
    config, saved_run, tmp_path, capsys
):
    def files():
        return {x: x.stat().st_mtime_ns for x in saved_run.rglob("*")}

    before, out = files(), tmp_path / "out"
    run(config, saved_run, fit=False, limit=2, out=out)
    assert files() == before
    assert {x.name for x in out.iterdir()} >= {"eval-val-limit2.json", "predictions"}
    run(config, saved_run, fit=False, limit=2, out=out)
    assert "is replaced" not in capsys.readouterr().out
    flipped = InferenceSettings(window=None, stride=None, scales=(1.0,), flip=True)
    run(config, saved_run, fit=False, limit=2, out=out, settings=flipped)
    printed = capsys.readouterr().out
    assert "eval-val-limit2.json is replaced; it was of another evaluation" in printed
    assert "'flip': False" in printed and "checkpoint 7" not in printed
    for damaged, reason in (("damaged", "not JSON"), ("[1]", "not a JSON object")):
        (out / "eval-val-limit2.json").write_text(damaged)
        run(config, saved_run, fit=False, limit=2, out=out)
        assert f"another evaluation (it is {reason})" in capsys.readouterr().out
        assert json.loads((out / "eval-val-limit2.json").read_text())["images"] == 2


def test_a_folder_that_cannot_be_written_is_refused_before_the_evaluation(
    config, saved_run, monkeypatch
):
    monkeypatch.delattr(evaluate, "score")
    monkeypatch.setattr(eval_report.os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="cannot be written; .*--out=DIR"):
        run(config, saved_run)


def test_damaged_scores_are_no_error_for_a_checkpoint_that_is_named(
    config, saved_run, tmp_path
):
    folder = shutil.copytree(saved_run, tmp_path / "copy")
    (folder / "checkpoints" / "7" / checkpoint_folder.SCORES).write_text("not JSON")
    for checkpoint in ("latest", "7"):
        report = run(config, folder, checkpoint=checkpoint, fit=False, limit=2)
        assert report["checkpoint"] == 7


def test_no_temperature_is_fitted_on_a_split_without_labels(
    config, saved_run, monkeypatch
):
    whole = builders.load_split(config, "val")
    void = codec.encode_label(np.full((128, 128), 255, np.uint8))
    records = [record | {"label": void} for record in list(whole.examples)[:2]]
    unlabeled = dataclasses.replace(whole, examples=records)
    splits = {"test": builders.load_split(config, "test"), "val": unlabeled}
    monkeypatch.setattr(builders, "load_split", lambda config, name: splits[name])
    with pytest.raises(ValueError, match="scenes val: no pixel .*--nofit_temperature"):
        run(config, saved_run, split_name="test", limit=2)


def test_what_is_left_out_of_the_split_is_counted_and_printed(
    config, saved_run, monkeypatch, capsys
):
    assert run(config, saved_run, fit=False, limit=2)["left_out"] == 0
    assert "note:" not in capsys.readouterr().out
    whole = builders.load_split(config, "val")
    less = dataclasses.replace(whole, left_out=("a", "b"), notes=("c is missing",))
    monkeypatch.setattr(builders, "load_split", lambda *args: less)
    assert run(config, saved_run, fit=False, limit=2)["left_out"] == 2
    printed = capsys.readouterr().out
    assert "note: scenes val: images left out as problem files" in printed
    assert "note: c is missing\n" in printed


def test_a_split_without_labels_is_refused_before_it_is_predicted(
    config, saved_run, monkeypatch
):
    whole = builders.load_split(config, "val")
    void = codec.encode_label(np.full((96, 128), 255, np.uint8))
    records = [record | {"label": void} for record in list(whole.examples)[:3]]
    unlabeled = dataclasses.replace(whole, name="test", examples=records)
    monkeypatch.setattr(builders, "load_split", lambda *args: unlabeled)
    monkeypatch.delattr(evaluate, "score")
    with pytest.raises(ValueError, match="scenes test: no pixel is labeled.*submit.py"):
        run(config, saved_run, fit=False)


def test_inference_settings_and_split_are_those_requested(config, saved_run, capsys):
    settings = InferenceSettings(window=128, stride=None, scales=(1.0,), flip=True)
    report = run(config, saved_run, settings=settings, fit=False)
    assert "windows of 128 pixels every 85" in capsys.readouterr().out
    assert report["inference"]["flip"] is True and "fitted" not in report["calibration"]
    with pytest.raises(ValueError, match="'tset'"):
        run(config, saved_run, split_name="tset")


@pytest.mark.parametrize("window", [None, 64], ids=["whole", "windows"])
def test_evaluation_and_prediction_give_an_image_the_same_labels(saved_run, window):
    """Also where a dataset has images of many sizes."""
    predictor = tempseg_jax.load(saved_run, window=window)
    rng = np.random.default_rng(0)
    sizes = [(90, 90), (150, 90), (90, 260)]
    images = {
        f"{h}x{w}": rng.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in sizes
    }
    records = [
        {
            "id": name,
            "image": codec.encode_image(image),
            "label": codec.encode_label(np.zeros(image.shape[:2], np.uint8)),
        }
        for name, image in images.items()
    ]
    split = Split(
        "tiny",
        "val",
        records,
        predictor.class_names,
        predictor.palette,
        sizes=dict.fromkeys(sizes, 1),
    )
    scored = evaluate_split(
        predictor.variables,
        split,
        segmenter=predictor.segmenter,
        batch_size=1,
        num_workers=0,
        settings=predictor.settings,
        temperatures=(1.0,),
    )
    predictions = {example.id: example.prediction for example, _, _ in scored}
    for name, image in images.items():
        np.testing.assert_array_equal(predictions[name], predictor(image))
