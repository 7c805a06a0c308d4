"""The small parts of `gpu_day.py`: printed lines, versions, packages and cards."""

import importlib
import json
import subprocess
import sys

import pytest

from tempseg_jax.aot import cards
from tests.support import ROOT


@pytest.fixture
def part(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")  # as Python does for a script
    return lambda name: importlib.import_module(f"gpu_parts.{name}")


def test_a_printed_line_has_the_numbers_and_a_bounded_length(part):
    result_line = part("result_line")
    row = {"ms": 2.5, "spread_ms": [2.0, 3.0], "dtype": "bfloat16", "peak": None}
    long = {"device": "x" * 99, "worst": {"a": 1.0}, "names": ["a"], "all": [0.0] * 9}
    result = {"status": "done", "seconds": 1.5, "results": [row | long] * 100}
    text = result_line.result_line("part", "case", result)
    line = json.loads(text)
    assert len(text) <= result_line.LONGEST
    assert len(line["results"]) > 5 and line["results"][0] == row
    assert len(line["results"]) + line["left_out"] == 100
    failed = {"status": "failed", "error": "e" * 9999, "results": []}
    assert len(result_line.result_line("part", "case", failed)) < 500


def test_the_version_changes_with_every_python_file_and_nothing_else(
    part, monkeypatch, tmp_path
):
    program = part("program")
    monkeypatch.setattr(program, "ROOT", tmp_path)
    (tmp_path / "scripts/parts").mkdir(parents=True)
    versions = []
    for name, text in (("a.py", "1"), ("parts/b.py", "1"), ("a.py", "2")):
        (tmp_path / "scripts" / name).write_text(text)
        versions.append(program.version())
    (tmp_path / "README.md").write_text("changed")
    assert program.version() == versions[-1]
    assert len({x["program"] for x in versions}) == 3


def test_the_scores_of_finished_runs_are_results(part, tmp_path):
    for cell in ("baseline", "tg2", "adversarial"):
        (tmp_path / cell / "seed1").mkdir(parents=True)
    scores = {"miou": 0.5, "pacc": 0.75, "nll": [1.0]}
    final = {"step": 9, "seconds": 12.34, "splits": {"val": scores}}
    (tmp_path / "baseline/seed1/final.json").write_text(json.dumps(final))
    diverged = json.dumps({"diverged": "the loss is not finite"})
    (tmp_path / "tg2/seed1/final.json").write_text(diverged)
    assert part("finished_runs").finished_runs(tmp_path) == [
        {
            "cell": "baseline",
            "seed": 1,
            "diverged": False,
            "seconds": 12.3,
            "val_miou": 0.5,
            "val_pacc": 0.75,
        },
        {"cell": "tg2", "seed": 1, "diverged": True, "seconds": None},
    ]


IMPORTED = """
import ast, importlib, json, sys
sys.path[:0] = [ROOT, ROOT + "/scripts"]
for name in MODULES: importlib.import_module(name)
names = set()
for module in list(sys.modules.values()):
    path = getattr(module, "__file__", None) or ""
    if path.startswith(ROOT + "/") and "/.venv" not in path:
        tree = ast.parse(open(path).read())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {x.name.split(".")[0] for x in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
own = {"tempseg_jax", "configs", "benchmark_parts", "gpu_parts"}
print(json.dumps(sorted(names - sys.stdlib_module_names - own)))
"""


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        ("STEP", ["benchmark_parts.train", "gpu_parts.gradient_error"]),
        (
            "CONFIG",
            [
                "benchmark_parts.compile",
                "gpu_parts.resume_bitwise",
                "configs.fcn_voc",
                "tempseg_jax.workdir.checkpoint",
            ],
        ),
        ("TRAINING", ["tempseg_jax.main", "tempseg_jax.sweep.run"]),
    ],
)
def test_the_listed_packages_are_those_that_the_modules_import(part, names, modules):
    packages = part("packages")
    program = f"ROOT, MODULES = {str(ROOT)!r}, {modules}"
    run = [sys.executable, "-c", program + IMPORTED]
    imported = json.loads(subprocess.check_output(run, text=True))
    # The pipeline imports TensorFlow Datasets when it reads a dataset, and that imports
    # the other two.
    later = {"tensorflow_datasets", "array_record", "importlib_resources"}
    optional = {"wandb"}
    assert set(imported) - optional == set(getattr(packages, names)) - later


@pytest.mark.parametrize(
    ("device_name", "key"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", None),  # has other speeds
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 2070", None),  # there is a Card of the 2070 SUPER
        ("NVIDIA", None),
        ("", None),
    ],
)
def test_a_card_is_found_by_the_name_of_its_driver(device_name, key):
    assert cards.key_of(device_name) == key


@pytest.mark.parametrize(("name", "card"), [("NVIDIA H200", "h200"), ("new", "h100")])
def test_the_card_to_compile_for_is_the_one_of_this_machine(
    part, monkeypatch, tmp_path, name, card
):
    settings = part("settings")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert settings.card_of_this_machine() == "h100"  # there is no nvidia-smi
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{name}'\necho 'second'\n")
    program.chmod(0o755)
    assert settings.card_of_this_machine() == card
