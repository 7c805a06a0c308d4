"""Which processes of `resume_bitwise.py` run, and which are compared."""

import argparse
import importlib
import json
import subprocess

import pytest

from tests.support import ROOT


@pytest.fixture
def resume_bitwise(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")  # as Python does for a script
    return importlib.import_module("gpu_parts.resume_bitwise")


@pytest.fixture
def compare(resume_bitwise, monkeypatch, tmp_path, capsys):
    """Return a function that compares processes, which print these digests."""
    workdir, calls = tmp_path / "work", []

    def compare(digests, *, control):
        def run(command, *, env, **_):
            (word,) = (x for x in command if str(x).startswith("--run="))
            flag = env["XLA_FLAGS"].split("xla_gpu_")[1].split("_")[0]
            calls.append((word.removeprefix("--run="), flag, workdir.exists()))
            workdir.mkdir(exist_ok=True)
            digest = {"digests": {"a": digests[len(calls) - 1]}, "loss": len(calls)}
            line = json.dumps(digest | {"device": "a card"})
            return subprocess.CompletedProcess(command, 0, stdout=line)

        monkeypatch.setattr(resume_bitwise.subprocess, "run", run)
        args = argparse.Namespace(
            **{"workdir": workdir, "control": control, "model": "resnet50"},
            **{"size": 32, "batch": 2, "steps": 4, "width": 0.05},
            autotune_results=tmp_path / "tables" / "choices.txt",
        )
        assert resume_bitwise.compare(args) == 0
        return json.loads(capsys.readouterr().out), calls

    return compare


def test_a_resumed_run_is_compared_with_an_uninterrupted_one(compare):
    result, calls = compare(["1", "2"], control=False)
    assert calls == [("straight", "dump", False), ("resumed", "load", True)]
    assert result["compared"] == ["straight", "resumed"]
    assert not result["bitwise_equal"] and result["different_arrays"] == 1


def test_the_control_compares_two_uninterrupted_runs_with_the_same_algorithms(compare):
    result, calls = compare(["1", "2", "2"], control=True)
    # Each starts without a checkpoint, and only the first chooses algorithms.
    assert calls == [
        ("straight", "dump", False),
        ("straight", "load", False),
        ("straight", "load", False),
    ]
    assert result["compared"] == ["straight", "straight"]
    assert result["bitwise_equal"] and result["losses"] == [2, 3]


def test_the_control_needs_a_file_of_algorithms(resume_bitwise, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["x", "--workdir=w", "--control"])
    with pytest.raises(SystemExit):
        resume_bitwise.main()
    assert "--control needs --autotune_results" in capsys.readouterr().err
