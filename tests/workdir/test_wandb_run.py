"""Logging to Weights & Biases: the real package offline, and failures of a double."""

import sys
import types

import numpy as np
import pytest

from tempseg_jax.workdir import wandb_run
from tempseg_jax.workdir.metrics_writer import Writer, read_metrics


def write(workdir, *, start_step=0, step=5):
    with Writer(
        workdir, start_step=start_step, last_step=9, wandb_config={"seed": 0}
    ) as writer:
        writer.write(step, {"train/loss": 0.5})
        writer.show(step, {"share": 0.25}, {"a": np.zeros((2, 3, 3), np.uint8)})


class Run:
    """Remembers what is logged, and fails from a given call on."""

    def __init__(self, failing=()):
        self.logged, self.finished, self.failing = [], False, failing

    def define_metric(self, *_, **__):
        pass

    def log(self, values):
        if "log" in self.failing:
            raise OSError("No space left on device")
        self.logged.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def package(monkeypatch):
    """Replace the package by a double; its `starts` are the arguments of `init`."""

    def init(**arguments):
        package.starts.append(arguments)
        return package.run

    package = types.SimpleNamespace(
        starts=[],
        run=Run(),
        init=init,
        Image=lambda x: x.shape,
        Settings=lambda **options: options,
    )
    monkeypatch.setitem(sys.modules, "wandb", package)
    return package


def test_scalars_and_pictures_are_logged_with_their_step(tmp_path, package):
    write(tmp_path)
    assert package.run.logged == [
        {"step": 5, "train/loss": 0.5},
        {"step": 5, "share": 0.25, "a": (2, 3, 3)},
    ]
    assert package.run.finished
    assert package.starts[0]["config"] == {"seed": 0}


def test_a_resumed_run_keeps_its_identity_and_another_has_its_own(tmp_path, package):
    for name in ("a", "a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        write(tmp_path / name)
    first, again, other = (start["id"] for start in package.starts)
    assert first == again != other


def test_a_failure_is_one_warning_and_training_goes_on(tmp_path, package, caplog):
    package.run = Run(failing=("log",))
    write(tmp_path)
    (warning,) = caplog.messages
    assert "Weights & Biases is no longer written (No space left" in warning
    assert read_metrics(tmp_path) == [{"step": 5, "train/loss": 0.5}]


def test_a_missing_package_is_named_before_training(monkeypatch):
    monkeypatch.setattr(wandb_run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="writer.wandb: .* pip install wandb"):
        wandb_run.check_installed()


@pytest.mark.slow
def test_the_package_writes_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the package wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write(tmp_path)
    write(tmp_path, start_step=5, step=7)
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    identity = (tmp_path / "wandb_id.txt").read_text().strip()
    assert len(runs) == 2 and all(run.name.endswith(identity) for run in runs)
    for run in runs:
        assert (run / f"run-{identity}.wandb").stat().st_size > 0
        assert list((run / "files" / "media" / "images").rglob("*.png"))
