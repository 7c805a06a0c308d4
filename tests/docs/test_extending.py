"""The examples of docs/extending.md, run as they are written there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tempseg_jax import models
from tempseg_jax.data import catalog
from tempseg_jax.objective import adversaries
from tempseg_jax.workdir.metrics_writer import read_metrics
from tests.support import ROOT

PAGE = (ROOT / "docs/extending.md").read_text()
TABLES = (
    models.SEGMENTERS,
    models.DISCRIMINATORS,
    adversaries.ADVERSARIES,
    catalog.DATASETS,
    catalog.CLASS_NAMES,
)


def blocks(language):
    """Return {nearest heading above, with a number if it has several: code}."""
    code, heading = {}, ""
    pattern = r"^#+ ([^\n]+)$|^```(\w*)\n(.*?)^```$"
    for match in re.finditer(pattern, PAGE, re.MULTILINE | re.DOTALL):
        heading = match[1] or heading
        if match[2] == language:
            count = sum(name.split(" / ")[0] == heading for name in code)
            code[f"{heading} / {count + 1}" if count else heading] = match[3]
    return code


EXAMPLES = blocks("python")


@pytest.fixture
def restored_tables():
    """Remove what an example registers."""
    before = [dict(table) for table in TABLES]
    yield
    for table, content in zip(TABLES, before, strict=True):
        table.clear()
        table.update(content)


def test_every_kind_of_extension_has_an_example():
    assert set(EXAMPLES) == {
        "A backbone or segmenter",
        "A head",
        "A dataset",
        "An adversarial loss of your own",
        "A metric",
        "A metric / 2",
        "Of the parameters or the gradients",
    }


def test_the_adversary_is_quoted_as_it_stands_in_the_package():
    source = (ROOT / "tempseg_jax/objective/adversaries.py").read_text()
    quotes = blocks("py")
    assert len(quotes) == 3
    for quote in quotes.values():
        assert quote.rstrip() in source


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_as_written(name, data_dir, restored_tables, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)  # already holds the scenes
    code = compile(EXAMPLES[name], f"docs/extending.md, {name!r}", "exec")
    exec(code, {"__name__": "__main__"})


def test_a_config_file_can_register_an_entry(tmp_path):
    register, _, _ = EXAMPLES["A backbone or segmenter"].partition("config = ")
    path = tmp_path / "mine.py"
    path.write_text(
        f"{register}\n"
        "def get_config():\n"
        "    config = demo.get_config()\n"
        "    config.model.name = 'fcn8s_strided'\n"
        "    return config\n"
    )
    command = ["-m", "tempseg_jax.main", f"--config={path}", "--mode=describe"]
    described = subprocess.run(
        [sys.executable, *command], cwd=ROOT, text=True, capture_output=True
    )
    assert "segmenter: fcn8s_strided, 8 classes" in described.stdout, described.stderr


@pytest.fixture
def changed(tmp_path):
    """A copy of the package with the diff of the last section."""
    (diff,) = blocks("diff").values()
    for folder in ("tempseg_jax", "configs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    applied = subprocess.run(
        ["git", "apply", "-"], cwd=tmp_path, input=diff, text=True, capture_output=True
    )
    assert not applied.returncode, (
        f"the diff in docs/extending.md does not fit the code: {applied.stderr}"
    )
    return tmp_path


def test_the_change_of_the_package_applies(changed):
    field = "config.objective.confidence_penalty"
    assert field in (changed / "configs/fcn_voc.py").read_text()


@pytest.mark.slow
def test_the_changed_package_trains(data_dir, changed):
    """The command of the last section, on the changed copy."""
    (heading,) = blocks("diff")
    trained = subprocess.run(
        blocks("bash")[heading],
        shell=True,
        executable="/bin/bash",
        cwd=changed,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(changed),
            "TFDS_DATA_DIR": data_dir,
            "GLIBC_TUNABLES": "",  # no restart with huge pages
        },
        text=True,
        capture_output=True,
    )
    assert not trained.returncode, trained.stderr
    (line,) = read_metrics(changed / "runs/penalty")
    # Both networks' score layers start at zero: every class has the same probability.
    assert 0 < line["train/entropy"] <= 2.0795, "the entropy of eight classes in nats"
    assert line["train/loss"] < line["train/loss_seg"] + 0.05 * line["train/loss_adv"]
