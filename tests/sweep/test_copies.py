"""The copy of a sweep that is kept or shared."""

import json

import numpy as np
import pytest

from tempseg_jax.sweep import cells, copies, store
from tempseg_jax.sweep.report import build, examples
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir import saved_config, train_images
from tempseg_jax.workdir.metrics_writer import read_metrics
from tests.support import load_config
from tests.sweep.report.fake_sweep import write_run, write_sweep

PICTURES = {  # by field
    "image": "examples.npz",
    "label": "examples.npz",
    "prediction": "baseline/seed0/predictions.npz",
}
BASELINES = [Run("baseline", 0), Run("baseline", 1)]


def write(folder, *, runs=None):
    config = load_config("demo")
    config.data.data_dir = "/home/someone/prepared"
    write_sweep(folder, tables=("4",), seeds=2, config=config, runs=runs)
    own = cells.configure(config, "baseline", seed=0)
    saved_config.claim(folder / "baseline" / "seed0", own, allow_change=False)
    return folder


def test_the_report_of_a_copy_is_that_of_the_sweep(tmp_path):
    sweep, copy = write(tmp_path / "sweep"), tmp_path / "copy"
    assert copies.copy_sweep(sweep, copy) == 4
    markdown = [build.to_markdown(build.build(SweepResults(x))) for x in (sweep, copy)]
    assert markdown[0] == markdown[1]


def test_a_copy_has_no_checkpoint_and_no_folder_of_the_machine(tmp_path):
    sweep, copy = write(tmp_path / "sweep"), tmp_path / "copy"
    train_images.write(sweep / "baseline" / "seed0", train_images.LABELED, ["a"])
    (sweep / "baseline" / "seed0" / "checkpoints").mkdir()
    (sweep / "baseline" / "seed0" / "checkpoints" / "array").write_text("large")
    copies.copy_sweep(sweep, copy)
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        "config.json",
        "examples.npz",
        "final.json",
        "labeled_images.txt",
        "metrics.jsonl.gz",
        "predictions.npz",
        "sweep.json",
        "test.npz",
        "train.npz",
        "val.npz",
    }
    assert not [path for path in files if b"someone" in path.read_bytes()]
    assert (copy / "baseline" / "seed0" / "config.json").exists()
    assert {x.parent.name for x in copy.rglob("predictions.npz")} == {"seed0"}


def test_a_copy_has_six_digits_of_the_metrics(tmp_path):
    sweep, copy = write(tmp_path / "sweep"), tmp_path / "copy"
    run = Run("baseline", 0)
    line = {"step": 12345678, "train/loss": 0.12345678, "val/miou": None}
    (run.folder(sweep) / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    copies.copy_sweep(sweep, copy)
    (copied,) = read_metrics(run.folder(copy))
    assert copied == line | {"train/loss": 0.123457}


def test_a_copy_has_evenly_spaced_examples_with_their_predictions(
    tmp_path, monkeypatch
):
    sweep, copy = write(tmp_path / "sweep"), tmp_path / "copy"
    pictures = {
        field: store.load_pictures(sweep / file, field=field)
        for field, file in PICTURES.items()
    }
    ids = [*pictures["image"]]
    assert len(ids) > 3
    assert copies.EXAMPLES >= examples.COUNT  # enough for a report
    monkeypatch.setattr(copies, "EXAMPLES", 2)
    copies.copy_sweep(sweep, copy)
    for field, file in PICTURES.items():
        copied = store.load_pictures(copy / file, field=field)
        assert [*copied] == [ids[0], ids[-1]]
        for id_, pixels in copied.items():
            np.testing.assert_array_equal(pixels, pictures[field][id_])


def test_unfinished_files_are_not_copied_and_replace_no_log(tmp_path):
    sweep, copy = write(tmp_path / "sweep"), tmp_path / "copy"
    run = BASELINES[0]
    (run.folder(sweep) / ".val.npz.partial.npz").write_bytes(b"half")
    run.folder(copy).mkdir(parents=True)
    (run.folder(copy) / "metrics.jsonl").write_text('{"step": 1}\n')  # begun there
    copies.copy_sweep(sweep, copy)
    assert {x.name for x in run.folder(copy).glob("*.npz")} == {
        f"{name}.npz" for name in ("train", "val", "test", "predictions")
    }
    assert read_metrics(run.folder(copy))[0]["step"] == 10


def test_a_sweep_is_not_copied_into_itself(tmp_path):
    sweep = write(tmp_path / "sweep")
    before = {x: x.read_bytes() for x in sweep.rglob("*") if x.is_file()}
    with pytest.raises(ValueError, match="this is the sweep itself"):
        copies.copy_sweep(sweep, sweep / ".." / "sweep")
    assert before == {x: x.read_bytes() for x in sweep.rglob("*") if x.is_file()}


def test_a_copy_holds_the_runs_of_one_sweep(tmp_path):
    sweep, copy = write(tmp_path / "sweep"), tmp_path / "copy"
    copies.copy_sweep(sweep, copy)
    before = {x: x.read_bytes() for x in copy.rglob("*") if x.is_file()}
    config = load_config("demo")
    config.optimizer.learning_rate_g *= 10
    write_sweep(tmp_path / "faster", tables=("4",), seeds=3, config=config)
    with pytest.raises(ValueError, match="runs of another config .*learning_rate_g"):
        copies.copy_sweep(tmp_path / "faster", copy)
    names = [f"class {i}" for i in range(6)]
    write_sweep(tmp_path / "classes", tables=("4",), seeds=3, class_names=names)
    with pytest.raises(ValueError, match="sweep.json: .*class_names"):
        copies.copy_sweep(tmp_path / "classes", copy)
    assert before == {x: x.read_bytes() for x in copy.rglob("*") if x.is_file()}


def test_runs_that_were_added_to_a_copy_stay_in_its_report(tmp_path):
    sweep, copy = write(tmp_path / "sweep"), tmp_path / "copy"
    copies.copy_sweep(sweep, copy)
    write_sweep(copy, tables=("4", "1"), seeds=3)
    assert copies.copy_sweep(sweep, copy) == 0
    scope = SweepResults(copy).scope
    assert scope.tables == ("4", "1") and scope.seeds == 3


def test_only_finished_runs_that_are_new_are_copied(tmp_path):
    sweep, copy = write(tmp_path / "sweep", runs=BASELINES), tmp_path / "copy"
    (sweep / "adversarial" / "seed0").mkdir(parents=True)
    assert copies.copy_sweep(sweep, copy) == 2
    assert not (copy / "adversarial").exists()
    write_run(sweep, Run("adversarial", 0))
    before = (copy / "baseline" / "seed0" / "final.json").stat().st_mtime_ns
    assert copies.copy_sweep(sweep, copy) == 1
    assert (copy / "baseline" / "seed0" / "final.json").stat().st_mtime_ns == before
    assert Run("adversarial", 0).finished(copy)
