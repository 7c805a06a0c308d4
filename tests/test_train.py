"""Short training runs: their files, and resuming after an interruption."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tempseg_jax import builders, callbacks, evaluate, mesh, resume, train
from tempseg_jax.builders.plan import Plan
from tempseg_jax.inference.settings import DEFAULT_SETTINGS
from tempseg_jax.workdir import saved_config
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.lock import training_lock
from tempseg_jax.workdir.metrics_writer import read_metrics
from tests.events import read_events
from tests.support import ROOT, make_demo_config

STEPS = 6
SETTINGS = {
    "steps": STEPS,
    "log_every_steps": 1,
    "save_every_steps": 2,
    "evaluate_every_epochs": 3 / 128,  # of 128 steps
    # High learning rates, so that a few steps change every prediction.
    "optimizer.learning_rate_g": 0.5,
    "optimizer.learning_rate_d": 1e-5,
}
TIMINGS = ("images_per_s", "steps_per_s", "data_wait")


@pytest.fixture(scope="module")
def config(data_dir):
    config = make_demo_config(data_dir)
    config.update_from_flattened_dict(SETTINGS)
    return config.lock()


@pytest.fixture(scope="module")
def command(config):
    """The command line of the same run."""
    reduced = ("data.data_dir", "data.batch_size", "data.crop_size", "data.num_workers")
    values = dict(SETTINGS)
    values |= {name: config.data[name.split(".")[1]] for name in reduced}
    values["model.width"] = config.model.width
    overrides = [f"--config.{name}={value}" for name, value in values.items()]
    return [sys.executable, "-m", "tempseg_jax.main", "--config=configs/demo.py"] + (
        overrides
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """The workdir of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("run")
    train.train(config, folder, allow_change=False)
    return folder


@pytest.fixture(scope="module")
def stopped(config, tmp_path_factory):
    """The workdir of a run that SIGTERM stopped after step 1, before the first save."""
    folder = tmp_path_factory.mktemp("stopped")
    batches = builders.training_batches

    def batches_and_sigterm(*args, **kwargs):
        for number, batch in enumerate(batches(*args, **kwargs), start=1):
            if number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "training_batches", batches_and_sigterm)
        train.train(config, folder, allow_change=False)
    return folder


@pytest.fixture
def copy(stopped, tmp_path):
    """A copy of the stopped run, to resume it."""
    return shutil.copytree(stopped, tmp_path / "copy")


def changed(config, **values):
    """Return the config with other values; `__` stands for the dot of a field."""
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict(
        {k.replace("__", "."): v for k, v in values.items()}
    )
    return other


def state_of(config, folder, *, step="latest"):
    """Restore the whole state of a checkpoint."""
    checkpoints = Checkpoints(folder)
    number = checkpoints.resolve(step)
    split = builders.load_split(config, "val")
    objective = builders.build_objective(config, num_classes=8)
    like = mesh.replicated_shapes(
        builders.abstract_state(config, objective), mesh.local_mesh()
    )
    model = builders.describe_model(config, objective, split)
    return checkpoints.restore(like, model, step=number)


def numbers_of(line):
    """Return the values of a log line, without measured times."""
    return {k: v for k, v in line.items() if not k.endswith(TIMINGS)}


def assert_same_lines(actual, expected):
    assert [numbers_of(line) for line in actual] == [
        numbers_of(line) for line in expected
    ]


def contents(folder):
    """Return the contents of every file of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_a_run_writes_its_config_curves_predictions_and_checkpoints(run, config):
    assert saved_config.read_config(run).to_dict() == config.to_dict()
    assert (run / "curves.png").stat().st_size > 0
    panels = [path.name for path in (run / "predictions" / "val").iterdir()]
    assert sorted(panels) == [f"val_{8 * i:04d}.png" for i in range(8)]  # of 64
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert Checkpoints(run).resolve("latest") == STEPS


def test_tensorboard_has_panels_the_iou_and_the_share_of_each_class(run):
    tags = {}
    for path in (run / "tensorboard").iterdir():
        for event in read_events(path):
            for value in event.summary.value:
                tags.setdefault(value.tag, {})[event.step] = value
    iou = {tag: points for tag, points in tags.items() if tag.startswith("val_iou/")}
    assert "val_iou/ground" in iou
    assert all(0 <= v.simple_value <= 1 for p in iou.values() for v in p.values())
    assert tags["val/val_0000"].keys() == {3, 6}
    panel = tags["val/val_0000"][6].image
    assert (panel.height, panel.width) == (128, 3 * 128 + 2 * 6)
    assert tags["val/confusion"].keys() == {6}  # after the last step only
    shares = {tag: p for tag, p in tags.items() if tag.startswith("train_share/")}
    assert len(shares) == 9 and "train_share/void_255" in shares
    total = sum(points[6].simple_value for points in shares.values())
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_an_evaluation_in_training_scores_the_requested_number_of_images(
    config, tmp_path, capsys
):
    fewer = changed(config, steps=2, evaluate_every_steps=1, evaluate_images=5)
    train.train(fewer, tmp_path, allow_change=False)
    assert capsys.readouterr().out.count("  5 images in ") == 2


def test_a_run_on_a_part_of_the_images_lists_them(config, run, tmp_path):
    assert not (run / "train_images.txt").exists()
    part = changed(
        config,
        data__train_fraction=1 / 64,
        data__subset_seed=5,
        steps=1,
        evaluate_every_epochs=0.0,
    )
    train.train(part, tmp_path, allow_change=False)
    split = builders.load_training_split(part)
    ids = [record["id"] for record in split.examples]
    assert (tmp_path / "train_images.txt").read_text().splitlines() == ids
    assert len(ids) == 8 < len(builders.load_split(part, "train").examples)
    assert set(ids) < {x["id"] for x in builders.load_split(part, "train").examples}


def test_the_log_has_every_step_once_and_the_documented_names(run):
    lines = read_metrics(run)
    train = [line for line in lines if "train/loss" in line]
    val = [line for line in lines if "val/miou" in line]
    gradients = [line for line in lines if "train/adv_share" in line]
    assert [line["step"] for line in gradients] == [line["step"] for line in val]
    for line in gradients:
        assert line["train/adv_share"] > 0 and -1 <= line["train/adv_cosine"] <= 1
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in val] == [3, 6]
    assert gradients == val and len(lines) == len(train) + len(val)
    documented = "loss_seg loss_adv loss_d d_real d_fake learning_rate images_per_s"
    for name in (*documented.split(), "data_wait"):
        assert all(np.isfinite(line[f"train/{name}"]) for line in train), name
    for name in ("pacc", "miou", "macc", "fwiou"):
        assert all(0 <= line[f"val/{name}"] <= 1 for line in val), name
    for line in train:
        total = line["train/loss_seg"] + 0.05 * line["train/loss_adv"]
        np.testing.assert_allclose(line["train/loss"], total, rtol=1e-5)


def test_the_best_checkpoint_has_the_highest_miou(run):
    miou = {x["step"]: x["val/miou"] for x in read_metrics(run) if "val/miou" in x}
    assert miou[3] > miou[6], (
        "this test needs a best checkpoint that is not the last one"
    )
    assert Checkpoints(run).resolve("best") == 3
    assert Checkpoints(run).resolve("latest") == 6


@pytest.mark.parametrize("checkpoint", ["best", "latest", "6"])
def test_evaluating_a_checkpoint_gives_the_scores_that_training_logged(
    run, config, checkpoint
):
    report = evaluate.evaluate(
        config,
        run,
        checkpoint=checkpoint,
        split_name=None,
        settings=DEFAULT_SETTINGS,
        fit=False,
    )
    logged = {x["step"]: x for x in read_metrics(run) if "val/miou" in x}
    expected = logged[report["checkpoint"]]
    assert report["checkpoint"] == Checkpoints(run).resolve(checkpoint)
    assert report["images"] == 64
    assert report["pixels"] <= 64 * 128 * 128
    for name in ("pacc", "miou", "macc", "fwiou"):
        np.testing.assert_allclose(report[name], expected[f"val/{name}"], rtol=1e-6)


def test_sigterm_saves_and_logs_the_steps_so_far(stopped):
    assert Checkpoints(stopped).steps() == [1]
    assert [line["step"] for line in read_metrics(stopped)] == [1]


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_result(run, copy, config):
    train.train(config, copy, allow_change=False)
    jax.tree.map(
        np.testing.assert_array_equal, state_of(config, copy), state_of(config, run)
    )
    assert_same_lines(read_metrics(copy), read_metrics(run))


def test_starting_a_finished_run_again_changes_nothing(run, config):
    before = contents(run / "checkpoints")
    lines = read_metrics(run)
    train.train(config, run, allow_change=False)
    assert contents(run / "checkpoints") == before
    assert read_metrics(run) == lines


def test_the_start_says_which_images_are_left_out(run, config, monkeypatch, capsys):
    data = builders.load_run_data(config)
    val = dataclasses.replace(data.val, left_out=("val/a.jpg: broken",))
    monkeypatch.setattr(
        builders, "load_run_data", lambda config: data._replace(val=val)
    )
    train.train(config, run, allow_change=False)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "left out" in x]
    assert line.startswith("scenes val: images left out as problem files")
    assert line.endswith(": 1, such as val/a.jpg: broken")


def test_a_run_whose_data_have_changed_is_refused_and_unchanged(copy, config):
    path = copy / "data.json"
    numbers = json.loads(path.read_text())
    assert numbers["labeled_images"] == 512 and numbers["steps"] == STEPS
    path.write_text(json.dumps(numbers | {"labeled_images": 256}))
    before = contents(copy)
    message = "labeled images: 256 before, 512 now.*--allow_config_change"
    with pytest.raises(ValueError, match=message):
        train.train(config, copy, allow_change=False)
    assert contents(copy) == before
    train.train(config, copy, allow_change=True)
    assert json.loads(path.read_text()) == numbers


@pytest.mark.parametrize(
    "name, other, message",
    [
        ("labeled_images", "256", "labeled_images: 512 and 256"),
        ("steps", "7", "steps: 6 and 7"),
        ("first step", "1", "first step: 2 and 1"),
        ("evaluates first", "True", "evaluates first: False and True"),
    ],
)
def test_all_processes_refuse_a_run_on_whose_start_they_do_not_agree(
    copy, config, monkeypatch, name, other, message
):
    def texts(text):
        if f'"{name}"' not in text:
            return [text, text]
        return [text, json.dumps(json.loads(text) | {name: other})]

    monkeypatch.setattr(mesh, "texts_of_processes", texts)
    with pytest.raises(ValueError, match=rf"0 and 1 .*\({message}\); .*all of them"):
        train.train(config, copy, allow_change=False)
    assert Checkpoints(copy).steps() == [1]


def test_all_processes_refuse_a_workdir_that_they_do_not_share(
    copy, config, monkeypatch
):
    listed = []

    def texts(text):
        if "[1]" not in text:
            return [text, text]
        listed.append(text)
        return [text, text.replace("[1]", "[]")]

    before = contents(copy)
    monkeypatch.setattr(mesh, "texts_of_processes", texts)
    monkeypatch.setattr(resume, "_PAUSE", 0)
    message = r"checkpoints in .*: \[1\] and \[\]\); give a --workdir on storage"
    with pytest.raises(ValueError, match=message):
        train.train(config, copy, allow_change=False)
    assert contents(copy) == before and len(listed) > 10  # NFS may be late
    monkeypatch.setattr(mesh, "texts_of_processes", lambda text: [text, text])
    train.train(config, copy, allow_change=False)


def test_a_log_without_checkpoints_is_not_erased_by_another_config(copy, config):
    shutil.rmtree(copy / "checkpoints")
    before = contents(copy)
    other = changed(config, objective__temperature_g=2.0)
    with pytest.raises(ValueError, match="temperature_g: 0.5.*has a log and no check"):
        train.train(other, copy, allow_change=False)
    (copy / "final.json").write_text("{}")
    with pytest.raises(ValueError, match="is a finished run of a sweep"):
        train.train(config, copy, allow_change=False)
    (copy / "final.json").unlink()
    assert contents(copy) == before


def test_another_config_is_refused_and_the_workdir_is_unchanged(copy, config):
    before = contents(copy)
    other = changed(config, objective__temperature_g=2.0)
    with pytest.raises(ValueError, match="temperature_g: 0.5 there, 2.0 now.*--allow"):
        train.train(other, copy, allow_change=False)
    assert contents(copy) == before


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(model__width=0.1), "width is 0.05 in the checkpoint and 0.1 in the"),
        (
            dict(model__name="resnet50"),
            "name is 'fcn8s' in the checkpoint and 'resnet50'",
        ),
        (
            dict(objective__alpha=0.0),
            "discriminator is 'dcgan' in the checkpoint and None",
        ),
    ],
)
def test_another_network_is_refused_even_if_changes_are_allowed(
    copy, config, change, message
):
    before = contents(copy)
    with pytest.raises(ValueError, match=message):
        train.train(changed(config, **change), copy, allow_change=True)
    assert contents(copy) == before


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"model.name": "resnet50", "model.head": "aspp"}, ValueError, "output stride"),
        (
            {"model.freeze_batch_norm": "all", "model.pretrained": "vgg16.tv_in1k"},
            ValueError,
            "model.freeze_batch_norm: 'all' is not supported",
        ),
        ({"model.freeze_batch_norm": "all"}, ValueError, "model.pretrained is empty"),
        ({"model.pretrained": "missing.h5"}, ValueError, "nor the path of a file"),
        ({"model.pretrained": "{folder}"}, FileNotFoundError, "no checkpoint"),
        ({"model.pretrained": "keras_resnet50"}, ValueError, "fits model.name="),
        ({"semi.weight": 0.1}, ValueError, "semi"),
        ({"distill.pairwise": 0.1}, ValueError, "distill.teacher: empty"),
        (
            {"distill.teacher": "nowhere", "distill.weight": 1.0},
            FileNotFoundError,
            "distill.teacher: nowhere has no checkpoint",
        ),
    ],
)
def test_a_mistake_in_the_networks_is_found_before_data_are_prepared(
    config, tmp_path, changes, error, message
):
    config = config.copy_and_resolve_references()
    config.data.name, config.data.manual_dir = "voc", "/missing"
    for field, value in changes.items():
        value = value.format(folder=tmp_path) if isinstance(value, str) else value
        config.update_from_flattened_dict({field: value})
    with pytest.raises(error, match=message):
        train.train(config, tmp_path / "run", allow_change=False)


def test_a_run_that_diverges_names_its_step_and_the_last_good_checkpoint(copy, config):
    other = changed(config, optimizer__learning_rate_g=1e38, save_every_steps=1)
    with pytest.raises(callbacks.Diverged) as caught:
        train.train(other, copy, allow_change=True)
    pattern = (
        r"step (\d): segmenter: .*last good checkpoint is step (\d); lower "
        r"optimizer.learning_rate_g, and resume with --allow_config_change$"
    )
    step, good = map(int, re.search(pattern, str(caught.value)).groups())
    assert good == Checkpoints(copy).resolve("latest") < step + 1
    assert good >= 1
    state = state_of(config, copy)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_a_folder_of_unlabeled_images_that_no_term_uses_is_named(
    config, tmp_path, capsys
):
    own = changed(config, steps=1, data__unlabeled_dir="/frames")
    train.train(own, tmp_path / "run", allow_change=False)
    message = "data.unlabeled_dir: /frames is not used; to train on its images, set"
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("logged", [False, True])
def test_a_run_that_was_killed_while_it_evaluated_evaluates_again(
    run, config, tmp_path, logged
):
    copy = shutil.copytree(run, tmp_path / "copy")
    scores = copy / "checkpoints" / str(STEPS) / "scores.json"
    expected = scores.read_text()
    scores.unlink()
    if not logged:
        lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
        assert "val/miou" in lines[-1]
        (copy / "metrics.jsonl").write_text("".join(lines[:-1]))
    train.train(config, copy, allow_change=False)
    assert scores.read_text() == expected
    assert_same_lines(read_metrics(copy), read_metrics(run))


def test_fewer_steps_than_were_trained_are_refused(run, config, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    fewer = changed(config, steps=STEPS - 1)
    before = contents(copy)
    with pytest.raises(ValueError, match="trained 6 steps already, more than the 5"):
        train.train(fewer, copy, allow_change=True)
    assert contents(copy) == before


@pytest.mark.parametrize(
    "error", [OSError("No space left on device"), ValueError("line 1 is not JSON")]
)
def test_pictures_that_cannot_be_written_do_not_end_training(
    copy, config, monkeypatch, caplog, error
):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(callbacks, "save_pictures", full)
    with caplog.at_level("WARNING"):
        assert not train.train(config, copy, allow_change=False)
    assert "pictures of the evaluation are not written" in caplog.text
    assert Checkpoints(copy).miou(config.steps) is not None


def test_the_state_is_saved_before_it_is_evaluated(copy, config, monkeypatch):
    def fail(*_, **__):
        raise ValueError("the evaluation failed")

    monkeypatch.setattr(callbacks, "score", fail)
    with pytest.raises(ValueError, match="the evaluation failed"):
        train.train(config, copy, allow_change=False)
    assert Checkpoints(copy).steps() == [2, 3]


def test_a_damaged_checkpoint_is_renamed_and_the_one_before_it_resumes(
    run, config, tmp_path, caplog
):
    copy = shutil.copytree(run, tmp_path / "copy")
    assert Checkpoints(copy).steps() == [3, 4, 6]
    (copy / "checkpoints/6/training/manifest.ocdbt").write_bytes(b"")
    with pytest.raises(ValueError, match="6: the checkpoint is damaged.*_fallback"):
        train.train(config, copy, allow_change=False, fallback=False)
    assert Checkpoints(copy).steps() == [3, 4, 6]
    train.train(config, copy, allow_change=False)
    assert "renamed to 6.damaged, and training goes on from step 4" in caplog.text
    names = {path.name for path in (copy / "checkpoints").iterdir()}
    assert names == {"3", "4", "6", "6.damaged"}
    jax.tree.map(
        np.testing.assert_array_equal, state_of(config, copy), state_of(config, run)
    )
    assert_same_lines(read_metrics(copy), read_metrics(run))
    assert Checkpoints(copy).resolve("best") == 3  # the resume does not forget it


def test_a_run_without_a_good_checkpoint_is_refused_and_unchanged(
    copy, config, tmp_path
):
    for path in (copy / "checkpoints").glob("*/model/metadata"):
        path.write_text("{")
    before = contents(copy)
    with pytest.raises(ValueError, match="every checkpoint is damaged .step 1: .*copy"):
        train.train(config, copy, allow_change=False)
    assert contents(copy) == before


def test_a_second_training_in_a_workdir_is_refused(copy, config):
    before = contents(copy)
    with (
        training_lock(copy),
        pytest.raises(OSError, match="another training runs in this workdir"),
    ):
        train.train(config, copy, allow_change=False)
    assert contents(copy) == before


def test_a_workdir_that_is_renamed_while_it_trains_is_an_error(
    copy, config, tmp_path, monkeypatch
):
    def rename(*args):
        if copy.exists():
            copy.rename(tmp_path / "renamed")
        return evaluated(*args)

    evaluated = callbacks._score
    monkeypatch.setattr(callbacks, "_score", rename)
    with pytest.raises(OSError, match="the workdir was renamed or deleted"):
        train.train(config, copy, allow_change=False)
    assert Checkpoints(copy).steps() == []  # the save was still running
    assert Checkpoints(tmp_path / "renamed").steps()


def test_the_time_left_counts_evaluations():
    plan = Plan(steps=10, warmup_steps=0, evaluate_every=4)
    assert [plan.evaluations_after(step) for step in (0, 3, 4, 8, 9, 10)] == [
        3,
        3,
        2,
        1,
        1,
        0,
    ]
    assert [step for step in range(11) if plan.evaluates_after(step)] == [4, 8, 10]
    run = callbacks.RunCallbacks.__new__(callbacks.RunCallbacks)
    run.plan, run.evaluations = plan, []
    assert run._left(4, steps_per_s=0.1) == "1:00 + 2 evaluations"
    run.evaluations = [50.0, 70.0]
    assert run._left(4, steps_per_s=0.1) == "3:00"
    assert run._left(10, steps_per_s=0.1) is None


def wait_for(process, folder, *, step):
    """Wait until the process has logged a step."""
    deadline = time.monotonic() + 240
    while not any(line["step"] >= step for line in read_metrics(folder)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(command, folder, **environment):
    return subprocess.Popen(
        [*command, f"--workdir={folder}"],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_result(run, command, config, tmp_path):
    # The run is terminated, resumed and killed, and resumed to its end.
    folder = tmp_path / "run"
    process = start(command, folder)
    wait_for(process, folder, step=1)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    saved = Checkpoints(folder).resolve("latest")
    assert f"Stopped after step {saved} of {STEPS}; the state is saved" in output

    process = start(command, folder)
    wait_for(process, folder, step=saved + 1)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL

    process = start(command, folder)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert re.search(r"Resuming at step \d of 6: 512 images, 1 cpu device", output)
    jax.tree.map(
        np.testing.assert_array_equal, state_of(config, folder), state_of(config, run)
    )
    assert_same_lines(read_metrics(folder), read_metrics(run))
