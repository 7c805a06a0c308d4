import importlib
import json
import sys
from pathlib import Path

import pytest

from tempseg_jax.aot import compilation
from tempseg_jax.aot.cards import CARDS, GIB
from tests.support import ROOT, load_config

HLO = (ROOT / "tests/aot/small_step.hlo").read_text()


@pytest.fixture
def compile_command(monkeypatch):
    """Run `benchmark.py compile` with a compiler that needs a GiB and one per image."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.chdir(ROOT)
    module = importlib.import_module("benchmark_parts.compile")
    compiled = []

    def compile_step(config, *, num_classes, card, num_devices):
        card.check_precision(config.precision)
        compiled.append((config, num_classes, card, num_devices))
        return compilation.CompiledStep(
            arguments=GIB,
            outputs=0,
            aliased=0,
            temporaries=config.data.batch_size * GIB,
            hlo=HLO,
            triton_gemm=True,
            seconds=1.0,
        )

    monkeypatch.setattr(module, "compile_step", compile_step)
    benchmark = importlib.import_module("benchmark")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", "compile", *words])
        assert benchmark.main() == 0
        return compiled

    return run


def test_all_four_steps_are_compiled_without_a_config(compile_command, capsys):
    compiled = compile_command()
    out, err = capsys.readouterr()
    results = [json.loads(line) for line in out.splitlines()]
    assert [(x["model"], x["mode"]) for x in results] == [
        ("fcn8s", "supervised"),
        ("fcn8s", "adversarial"),
        ("resnet50", "supervised"),
        ("resnet50", "adversarial"),
    ]
    for result in results:
        assert result["card"] == "h100"
        assert (result["dtype"], result["size"], result["batch"]) == (
            *("bfloat16", 416, 16),
        )
        assert result["need_gib"] == 17
        assert {"gb_moved", "kernels", "roofline_ms", "tflop"} <= result.keys()
    assert [classes for _, classes, _, _ in compiled] == [21] * 4
    assert "bf16[2, 8, 8, 16] tempseg_jax/models/ops.py:112" in err


def test_no_config_is_needed_in_the_current_folder(
    compile_command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "fcn8s", "--mode", "supervised"]
    ((config, *_),) = compile_command(*words)
    assert config.model.name == "fcn8s"


def test_options_set_the_fields_of_the_config(compile_command):
    words = ["--model", "resnet50", "--mode", "supervised", "--dtype=float16"]
    words += ["--size=64", "--batch=8", "--classes=5", "--remat", "--devices=2"]
    ((config, num_classes, card, devices),) = compile_command(*words, "--card=rtx2070s")
    assert (config.model.name, config.objective.alpha) == ("resnet50", 0)
    assert (config.precision, config.model.remat) == ("float16", True)
    assert (config.data.crop_size, config.data.batch_size) == (64, 8)
    assert (num_classes, card, devices) == (5, CARDS["rtx2070s"], 2)


def test_a_config_and_its_overrides_are_compiled_for_every_card(compile_command):
    compiled = compile_command(
        *("--config=configs/resnet50_camvid.py", "--card=h100", "--card=rtx4060"),
        *("--config.data.batch_size=4", "--config.accumulate=2"),
    )
    expected = load_config("resnet50_camvid")
    assert [card for _, _, card, _ in compiled] == [CARDS["h100"], CARDS["rtx4060"]]
    for config, num_classes, _, _ in compiled:
        assert config.data.batch_size == 4
        assert config.accumulate == 2
        assert config.data.crop_size == expected.data.crop_size
        assert num_classes == len(expected.data.options.class_names)


def test_the_largest_batch_is_on_the_line_through_two_batches(compile_command, capsys):
    compiled = compile_command(
        *("--model", "fcn8s", "--mode", "adversarial", "--largest_batch")
    )
    assert [config.data.batch_size for config, *_ in compiled] == [16, 8]
    # 75 % of 79.1 GiB, less 1.5 for workspaces and 1 without any image.
    assert json.loads(capsys.readouterr().out)["largest_batch"] == 56


def test_the_program_is_written(compile_command, tmp_path):
    compile_command(
        *("--model", "fcn8s", "--mode", "supervised", f"--hlo={tmp_path / 'new'}")
    )
    file = Path(tmp_path / "new/h100-fcn8s-supervised-bfloat16.hlo")
    assert file.read_text() == HLO


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config=configs/demo.py", "--batch=4"], "set --config.data.batch_size="),
        (["--config.model.nme=resnet50"], "no field 'nme'; did you mean 'name'"),
        (["--config.data.batch_size=0"], "data.batch_size"),
        (["--card=rtx2070s"], "has no bfloat16 products"),
        (["surplus"], "'surplus': unexpected argument"),
    ],
)
def test_an_option_that_cannot_be_used_is_an_error_in_one_line(
    words, message, compile_command, capsys
):
    with pytest.raises(SystemExit) as stop:
        compile_command(*words)
    assert message in str(stop.value.code)
    assert "\n" not in str(stop.value.code)
    assert not capsys.readouterr().out


def test_another_benchmark_still_refuses_an_unknown_option(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    benchmark = importlib.import_module("benchmark")
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "train", "--no_such_option"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "--no_such_option" in capsys.readouterr().err


def test_the_help_names_what_is_not_counted(compile_command, capsys):
    with pytest.raises(SystemExit) as stop:
        compile_command("--help")
    assert stop.value.code == 0
    assert "workspaces of cuDNN" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["size", "batch", "classes", "devices"])
def test_a_count_of_zero_is_refused(option, compile_command, capsys):
    with pytest.raises(SystemExit):
        compile_command(f"--{option}=0")
    assert f"--{option}: 0 is not a positive number" in capsys.readouterr().err
