"""Training with two real processes on this machine, connected by Gloo."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from tempseg_jax.cli import distributed
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.lock import training_lock
from tempseg_jax.workdir.metrics_writer import read_metrics

STEPS = 5


@pytest.fixture(scope="module")
def command(data_dir):
    """Return the command line of a run of a few seconds."""
    settings = {
        "model.width": 0.05,
        "data.crop_size": 64,  # at 32, D's BatchNorm has 4 values: rounding grows
        "data.batch_size": 4,
        "data.num_workers": 0,
        "data.data_dir": data_dir,
        "steps": STEPS,
        "log_every_steps": 1,
        "save_every_steps": 2,
    }
    overrides = [f"--config.{name}={value}" for name, value in settings.items()]
    main = [sys.executable, "-m", "tempseg_jax.main", "--config=configs/demo.py"]
    return [*main, *overrides]


def start(command, **flags):
    flags = [f"--{name}={value}" for name, value in flags.items()]
    return subprocess.Popen(
        [*command, *flags],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_address():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def start_two(command, only_second=(), **flags):
    shared = {"coordinator_address": free_address(), "num_processes": 2, **flags}
    first = start(command, **shared, process_id=0)
    return first, start([*command, *only_second], **shared, process_id=1)


def finish(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    """Return the workdir of the same run with one process."""
    workdir = tmp_path_factory.mktemp("alone")
    finish(start(command, workdir=workdir))
    return workdir


@pytest.fixture(scope="module")
def alone(finished):
    """Return the metrics of the same run with one process."""
    return read_metrics(finished)


def assert_same_run(actual, expected):
    assert [line["step"] for line in actual] == [line["step"] for line in expected]
    for a, b in zip(actual, expected, strict=True):
        names = {"train/loss_seg", "train/loss_d", "val/pacc", "val/nll"} & b.keys()
        # The all-reduce adds in another order. The difference is about 1e-7 per step,
        # and grows to 1e-5 at the end with jax 0.12.
        assert {n: a[n] for n in names} == pytest.approx(
            {n: b[n] for n in names}, rel=1e-4
        )


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(command, alone, tmp_path):
    # Fields that may differ between hosts do.
    other = ["--config.data.num_workers=1", "--config.data.cache_bytes=1000000"]
    pair = start_two(command, workdir=tmp_path, only_second=other)
    first, second = map(finish, pair)
    assert_same_run(read_metrics(tmp_path), alone)
    assert f"step {STEPS}/{STEPS}" in first
    assert "step" not in second  # only one process logs


@pytest.mark.slow
def test_two_processes_evaluate_as_one(command, alone, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    for process in start_two([*command, "--mode=eval"], workdir=folder):
        finish(process)
    report = json.loads((folder / "eval-val.json").read_text())
    finish(start([*command, "--mode=eval"], workdir=folder))
    one = json.loads((folder / "eval-val.json").read_text())
    for name in ("boundary_iou", "nll", "ece", "nll_fitted", "ece_fitted"):
        assert report[name] == pytest.approx(one[name], rel=1e-5), name
    for name in ("confusion", "class_boundary_iou", "pixels"):
        assert report[name] == one[name], name
    expected = alone[-1]
    assert report["checkpoint"] == expected["step"] == STEPS and report["images"] == 64
    assert report["miou"] == pytest.approx(expected["val/miou"], rel=1e-6)


@pytest.mark.slow
def test_two_processes_train_with_images_without_labels_as_one(command, tmp_path):
    # The last value of a flag counts: 4 labeled and 2 other images for 2 processes.
    settings = {
        "data.labeled_fraction": 1 / 8,
        "data.unlabeled_batch_size": 2,
        "model.discriminator": "fcn",
        "objective.adversary": "dcgan",
        "semi.alpha": 0.1,
        "semi.weight": 0.5,
        "steps": 2,
        "evaluate_every_epochs": 0,
    }
    command = command + [f"--config.{name}={x}" for name, x in settings.items()]
    finish(start(command, workdir=tmp_path / "alone"))
    for process in start_two(command, workdir=tmp_path / "two"):
        finish(process)
    lines = [read_metrics(tmp_path / name) for name in ("two", "alone")]
    assert_same_run(*lines)
    names = ("loss_semi", "loss_adv_unlabeled", "semi_share", "confidence_unlabeled")
    for two, alone in zip(*lines, strict=True):
        for name in names:
            assert two[f"train/{name}"] == pytest.approx(
                alone[f"train/{name}"], rel=1e-4
            )


@pytest.mark.slow
def test_a_killed_process_stops_the_other_and_any_number_of_processes_resumes(
    command, alone, tmp_path
):
    first, second = start_two(command, workdir=tmp_path)
    deadline = time.monotonic() + 200
    while not Checkpoints(tmp_path).steps() and time.monotonic() < deadline:
        time.sleep(0.05)
    second.kill()
    output, _ = first.communicate(timeout=2 * distributed.HEARTBEAT_TIMEOUT + 30)
    second.communicate()
    # If it waits for the other process in a save, JAX ends it after 30 s.
    reported = re.search(r"lost another process of the run|another task died", output)
    assert first.returncode != 0 and reported, output
    output = finish(start(command, workdir=tmp_path))
    assert "Resuming at step" in output
    assert_same_run(read_metrics(tmp_path), alone)


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_of_them(command, tmp_path):
    first, second = start_two(
        command, workdir=tmp_path, only_second=["--config.data.crop_size=0"]
    )
    output, _ = second.communicate(timeout=600)
    assert second.returncode == 1 and "error: data.crop_size: 0" in output, output
    first.communicate(timeout=2 * distributed.HEARTBEAT_TIMEOUT + 30)
    assert first.returncode != 0


@pytest.mark.slow
def test_a_workdir_in_use_is_refused_by_all_processes_of_a_second_start(
    command, tmp_path
):
    with training_lock(tmp_path):
        for process in start_two(command, workdir=tmp_path):
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 1, output
            assert f"error: {tmp_path}: another training runs in this" in output


@pytest.mark.slow
def test_processes_with_different_configs_are_all_refused(command, tmp_path):
    other = ["--config.optimizer.learning_rate_g=0.25"]
    for process in start_two(command, workdir=tmp_path, only_second=other):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1, output
        differ = "(optimizer.learning_rate_g: 0.02 and 0.25); start the same command"
        assert f"error: processes 0 and 1 of the run do not agree {differ}" in output
    assert not list(tmp_path.iterdir())


def with_code(command, code):
    """Return the same command with Python code before it."""
    code = f"{code}\nfrom tempseg_jax import main\nmain.run()"
    assert command[1:3] == ["-m", "tempseg_jax.main"]
    return [command[0], "-c", code, *command[3:]]


DAMAGE = """
import jax
from tempseg_jax.workdir import digests

compared, compare = [], digests.difference

def difference(tree, expected):
    compared.append(tree)
    damaged = jax.process_index() == 1 and len(compared) == 1
    return " is damaged here" if damaged else compare(tree, expected)

digests.difference = difference
"""


@pytest.mark.slow
def test_all_processes_fall_back_if_one_finds_a_damaged_checkpoint(
    command, alone, finished, tmp_path
):
    folder = shutil.copytree(finished, tmp_path / "copy")
    assert Checkpoints(folder).steps() == [STEPS - 1, STEPS]
    for process in start_two(with_code(command, DAMAGE), workdir=folder):
        output = finish(process)
        assert "is damaged here" in output
        assert f"training goes on from step {STEPS - 1}" in output
    assert (folder / "checkpoints" / f"{STEPS}.damaged").is_dir()
    assert_same_run(read_metrics(folder), alone)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_one_process_stops_all_after_the_same_step(command, tmp_path, sent):
    # A process in the background may ignore Ctrl-C.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    endless = ["steps=100000", "save_every_steps=100000", "evaluate_every_epochs=0"]
    command = with_code(command, code) + [f"--config.{x}" for x in endless]
    first, second = start_two(command, workdir=tmp_path)
    deadline = time.monotonic() + 200
    while not read_metrics(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    second.send_signal(sent)
    output, _ = finish(first), finish(second)
    (step,) = Checkpoints(tmp_path).steps()
    assert f"Stopped after step {step} of 100000; the state is saved" in output


JOIN = """
import os, signal, sys, time
from tempseg_jax.cli import distributed

address, count, number, trains = sys.argv[1:]
distributed.join(
    automatic=False,
    coordinator_address=address,
    num_processes=int(count),
    process_id=int(number),
    trains=trains == "True",
)
if int(number) == int(count) - 1:
    os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5)
"""


@pytest.mark.parametrize("count, trains", [(1, True), (2, False)])
def test_sigterm_ends_one_process_and_whatever_does_not_train(count, trains):
    # JAX's preemption service would keep it for a loop that does not ask for it.
    arguments = [free_address(), str(count)]
    processes = [
        start([sys.executable, "-c", JOIN, *arguments, str(number), str(trains)])
        for number in range(count)
    ]
    output, _ = processes[-1].communicate(timeout=120)
    assert processes[-1].returncode == -signal.SIGTERM, output
    for process in processes[:-1]:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "message, raised",
    [
        ("UNKNOWN: Gloo all-reduce failed: reset by peer", ConnectionError),
        ("RESOURCE_EXHAUSTED: Out of memory", jax.errors.JaxRuntimeError),
    ],
)
def test_out_of_memory_is_not_reported_as_a_lost_process(message, raised, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(raised, match=message[:7]), distributed.report_lost_process():
        raise jax.errors.JaxRuntimeError(message)


def test_an_incomplete_address_is_refused():
    with pytest.raises(ValueError, match="--num_processes"):
        distributed.join(
            automatic=False,
            coordinator_address="localhost:1",
            num_processes=None,
            process_id=0,
            trains=True,
        )
