import argparse
import json
import os
import subprocess
import sys

import jax
import pytest

from tests.support import ROOT

SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

import benchmark_train  # noqa: E402


def test_training_is_measured_without_data_and_without_its_libraries():
    program = (
        "import runpy, sys; sys.argv = ['benchmark.py', 'train', '--model=resnet50',"
        " '--mode=supervised', '--dtype=float32', '--size=32', '--batch=1',"
        " '--steps=5', '--warmup=1']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "unwanted = {'grain', 'tensorflow_datasets', 'tensorflow', 'torch'}\n"
        "assert not unwanted & sys.modules.keys()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=SCRIPTS,
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(done.stdout)
    assert (result["model"], result["mode"]) == ("resnet50", "supervised")
    assert result["segmenter_params"] == 23_577_621
    assert result["images_per_s"] == pytest.approx(1e3 / result["ms_per_step"], 0.1)
    # Three forward passes of one convolution-bound network, by hand for its first
    # layer alone: 16 x 16 outputs of 64 channels, 7 x 7 x 3 products each.
    assert result["model_tflop_per_step"] * 1e12 > 3 * 2 * 16 * 16 * 64 * 147
    low, high = result["spread_ms"]
    assert low <= result["ms_per_step"] <= high


def test_the_table_compares_with_the_faster_peer_of_the_same_work():
    def result(framework, mode, ms, **more):
        return dict(framework=framework, model="fcn8s", mode=mode, ms_per_step=ms)

    table = benchmark_train.table(
        [
            result("jax 0", "adversarial", 10.0),
            result("torch 2", "adversarial", 15.0),
            result("torch 2", "adversarial", 12.0),
            result("torch 2", "supervised", 1.0),
        ]
    )
    ours = table.splitlines()[1]
    assert ours.split()[-1] == "1.20"


@pytest.mark.parametrize(("platform", "device"), [("gpu", "cuda"), ("cpu", "cpu")])
def test_the_peer_runs_where_ours_did_and_this_process_holds_no_device(
    platform, device, monkeypatch, capsys
):
    started = []

    def lines(command):
        started.append(command)
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
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # no restart of the tests
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    parser = argparse.ArgumentParser()
    benchmark_train.add_arguments(parser)
    words = ["--model", "fcn8s", "--mode", "supervised", "--peer=peer.py"]
    assert benchmark_train.run(parser.parse_args(words)) == 0
    assert all(f"--device={device}" in command for command in started[1:])
    assert len(started) == (3 if device == "cuda" else 2)  # eager, compiled
    assert "torch 2" in capsys.readouterr().err
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"  # the peer uses one
