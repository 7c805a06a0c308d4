"""Two real processes on this machine, over gloo."""

import os
import re
import socket
import subprocess
import sys
import time

import jax
import pytest

from tempseg_jax.cli import distributed
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.metrics_writer import read_metrics

STEPS = 5


@pytest.fixture(scope="module")
def command(data_dir):
    """The command line of a run of a moment."""
    settings = {
        "model.width": 0.05,
        "data.crop_size": 64,  # at 32 D's BatchNorm has 4 values: that magnifies
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


def start_two(command, only_second=(), **flags):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    shared = {"coordinator_address": address, "num_processes": 2, **flags}
    first = start(command, **shared, process_id=0)
    return first, start([*command, *only_second], **shared, process_id=1)


def finish(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory):
    """What one process makes of the run."""
    workdir = tmp_path_factory.mktemp("alone")
    finish(start(command, workdir=workdir))
    return read_metrics(workdir)


def assert_same_run(found, expected):
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for a, b in zip(found, expected, strict=True):
        names = {"train/loss_seg", "train/loss_d", "val/pacc", "val/nll"} & b.keys()
        # The all-reduce adds in another order: about 1e-7 a step, which training
        # magnifies; 1e-5 in the end with jax 0.12.
        assert {n: a[n] for n in names} == pytest.approx(
            {n: b[n] for n in names}, rel=1e-4
        )


def test_two_processes_train_and_score_as_one(command, alone, tmp_path):
    first, second = (finish(p) for p in start_two(command, workdir=tmp_path))
    assert_same_run(read_metrics(tmp_path), alone)
    assert f"step {STEPS}/{STEPS}" in first
    assert "step" not in second  # one process writes the log


def test_a_killed_process_stops_the_other_and_any_number_goes_on(
    command, alone, tmp_path
):
    first, second = start_two(command, workdir=tmp_path)
    deadline = time.monotonic() + 200
    while not Checkpoints(tmp_path).steps() and time.monotonic() < deadline:
        time.sleep(0.05)
    second.kill()
    output, _ = first.communicate(timeout=2 * distributed.HEARTBEAT_TIMEOUT + 30)
    second.communicate()
    # Where it waited for the other to save, it is JAX that ends it, after 30 s.
    told = re.search(r"lost another process of the run|another task died", output)
    assert first.returncode != 0 and told, output
    output = finish(start(command, workdir=tmp_path))
    assert "Resuming at step" in output
    assert_same_run(read_metrics(tmp_path), alone)


def test_a_mistake_of_one_process_ends_all_of_them(command, tmp_path):
    first, second = start_two(
        command, workdir=tmp_path, only_second=["--config.data.crop_size=0"]
    )
    output, _ = second.communicate(timeout=600)
    assert second.returncode == 1 and "error: data.crop_size: 0" in output, output
    first.communicate(timeout=2 * distributed.HEARTBEAT_TIMEOUT + 30)
    assert first.returncode != 0


@pytest.mark.parametrize(
    "said, raised",
    [
        ("UNKNOWN: Gloo all-reduce failed: reset by peer", ConnectionError),
        ("RESOURCE_EXHAUSTED: Out of memory", jax.errors.JaxRuntimeError),
    ],
)
def test_a_full_memory_is_not_blamed_on_another_process(said, raised, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(raised, match=said[:7]), distributed.names_a_lost_process():
        raise jax.errors.JaxRuntimeError(said)


def test_half_of_an_address_is_refused():
    with pytest.raises(ValueError, match="--num_processes"):
        distributed.join(
            automatic=False,
            coordinator_address="localhost:1",
            num_processes=None,
            process_id=0,
        )
