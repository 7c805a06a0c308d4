import argparse
import importlib
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.support import ROOT

SCRIPTS = ROOT / "scripts"


@pytest.fixture
def benchmark_train(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)  # as Python does when it runs a script
    return importlib.import_module("benchmark_parts.train")


@pytest.fixture
def benchmark_data(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("benchmark_parts.data")


@pytest.mark.slow
def test_training_is_measured_without_data_and_without_its_libraries():
    program = (
        "import runpy, sys; sys.argv = ['benchmark.py', 'train', '--model=resnet50_c4',"
        " '--mode=supervised', '--dtype=float32', '--size=32', '--batch=1',"
        " '--steps=5', '--warmup=1']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "unwanted = {'grain', 'tensorflow_datasets', 'tensorflow', 'torch'}\n"
        "assert not unwanted & sys.modules.keys()\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=SCRIPTS,
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(process.stdout)
    assert (result["model"], result["mode"]) == ("resnet50_c4", "supervised")
    assert result["segmenter_params"] == 8_580_117
    assert result["images_per_s"] == pytest.approx(1e3 / result["ms_per_step"], 0.1)
    # A step takes three times the FLOPs of a forward pass. The first layer alone has
    # 16 x 16 outputs of 64 channels, with 7 x 7 x 3 products each.
    assert result["model_tflop_per_step"] * 1e12 > 3 * 2 * 16 * 16 * 64 * 147
    low, high = result["spread_ms"]
    assert low <= result["ms_per_step"] <= high


def test_the_table_compares_with_the_faster_peer_of_the_same_work(benchmark_train):
    def result(mode, ms, **fields):
        return dict(framework="x 1", model="fcn8s", mode=mode, ms_per_step=ms) | fields

    table = benchmark_train.table(
        [
            result("adversarial", 10.0),
            result("adversarial", 15.0, peer=True),
            result("adversarial", 12.0, peer=True),
            result("supervised", 1.0, peer=True),
        ]
    )
    ours = table.splitlines()[1]
    assert ours.split()[-1] == "1.20"


@pytest.mark.parametrize(("platform", "device"), [("gpu", "cuda"), ("cpu", "cpu")])
def test_the_peer_runs_on_our_platform_and_the_parent_process_uses_no_device(
    platform, device, benchmark_train, monkeypatch, capsys
):
    commands = []

    def lines(command, failed):
        commands.append(command)
        ours = command[1] != "peer.py"
        return [
            {
                "framework": "jax 0" if ours else "torch 2",
                "platform": platform,
                "model": "fcn8s",
                "mode": "supervised",
                "ms_per_step": 1.0,
            }
        ]

    monkeypatch.setattr(benchmark_train, "_lines", lines)
    monkeypatch.setattr(jax, "devices", pytest.fail)
    monkeypatch.setattr(jax, "default_backend", pytest.fail)
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # prevents a restart of the tests
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    parser = argparse.ArgumentParser()
    benchmark_train.add_arguments(parser)
    words = ["--model", "fcn8s", "--mode", "supervised", "--peer=peer.py"]
    assert benchmark_train.run(parser.parse_args(words)) == 0
    for command in commands[1:]:
        assert f"--device={device}" in command
        assert command[command.index("--mode") + 1] == "supervised"
    # Ours, the peer without compilation and, on CUDA, the peer with it.
    assert len(commands) == (3 if device == "cuda" else 2)
    assert "torch 2" in capsys.readouterr().err
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"  # the peer uses one


def test_a_peer_that_fails_does_not_end_the_others(
    benchmark_train, monkeypatch, capsys, tmp_path
):
    result = {"framework": "x", "model": "fcn8s", "platform": "cpu", "ms_per_step": 2}
    printing = "import json, sys; print(json.dumps(%r | {'mode': 'supervised'}))"
    ours, peer = tmp_path / "ours.py", tmp_path / "peer.py"
    ours.write_text(printing % result)
    peer.write_text(f"{printing % result}; sys.exit('resnet50' in str(sys.argv))")
    monkeypatch.setattr(
        benchmark_train,
        "_own_command",
        lambda args, model, mode: [sys.executable, str(ours)],
    )
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # prevents a restart of the tests
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    parser = argparse.ArgumentParser()
    benchmark_train.add_arguments(parser)
    words = ["--mode", "supervised", "--model", "resnet50", "fcn8s", f"--peer={peer}"]
    assert benchmark_train.run(parser.parse_args(words)) == 1
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1 + 2 + 2 + 1  # the head, ours, the peer's, the failure
    assert printed[-1].endswith("the command failed with exit status 1")


def test_the_default_peer_is_the_one_of_the_repository(benchmark_train):
    parser = argparse.ArgumentParser()
    benchmark_train.add_arguments(parser)
    assert parser.parse_args([]).peer is None
    peer = SCRIPTS / "peers" / "torch_step.py"
    assert parser.parse_args(["--peer"]).peer == str(peer) and peer.exists()


def test_resident_memory_is_measured_in_mib(benchmark_data):
    before = benchmark_data.resident_mib()
    block = np.ones(2**26, np.uint8)  # 64 MiB, all pages written
    assert 56 <= benchmark_data.resident_mib() - before <= 72
    assert block.all()
