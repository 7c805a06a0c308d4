"""The configs of the repository: their values and files, and that they train."""

import ast
import dataclasses
import math
import os
import re
import subprocess
import sys

import jax
import pytest

from configs import fcn_voc
from tempseg_jax import builders, describe, train
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.metrics_writer import read_metrics
from tests import miniatures
from tests.support import ROOT, load_config, narrow_discriminators, save_teacher

CONFIGS = sorted(
    path.stem
    for path in (ROOT / "configs").glob("[!_]*.py")
    if path.stem != "saved"  # takes the workdir of a run
)
DERIVED = sorted(set(CONFIGS) - {"fcn_voc"})
TABLE_4 = {
    "fcn_voc": (134_475_647, 2_785_089),
    "fcn_cityscapes": (134_445_433, 2_783_041),
    "resnet50_voc": (23_577_621, 2_785_089),
    "resnet50_cityscapes": (23_573_523, 2_783_041),
}


def shrink(config, data_dir):
    """Reduce a config so that it takes two steps within seconds."""
    config.data.data_dir = data_dir
    config.data.batch_size = 4
    config.data.crop_size = 32
    config.data.num_workers = 0
    config.model.width = 0.05
    config.model.pretrained = ""
    config.steps = 2
    config.save_every_steps = 1
    config.log_every_steps = 1
    return config


@pytest.fixture
def four_val_images(monkeypatch):
    """Evaluate on only the first four images of a split, to save time."""
    load = builders.load_split

    def load_few(config, split):
        loaded = load(config, split)
        if split == config.data.train_split:
            return loaded
        few = [loaded.examples[i] for i in range(4)]
        return dataclasses.replace(loaded, examples=few)

    monkeypatch.setattr(builders, "load_split", load_few)


def assert_trained(folder):
    assert Checkpoints(folder).resolve("latest") == 2
    lines = read_metrics(folder)
    assert [x["step"] for x in lines if "train/loss" in x] == [1, 2]
    assert all(math.isfinite(x["train/loss"]) for x in lines if "train/loss" in x)
    assert all(0 <= x["val/miou"] <= 1 for x in lines if "val/miou" in x)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_describes_itself_without_data(name, monkeypatch):
    # On a GPU XLA returns no cost analysis; the count must not depend on it.
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda _: None)
    config = load_config(name)
    description = describe.describe(config)
    counts = [
        int(re.search(rf"^{player} parameters: (\d+)$", description, re.M)[1])
        for player in ("segmenter", "discriminator")
    ]
    assert counts == list(TABLE_4.get(name, counts))
    assert re.search(r"forward pass: \d+\.\d+ GFLOP for one image of \d+x", description)
    assert "temperature_g: 0.5" in description


def test_the_configs_of_the_paper_have_its_hyperparameters():
    for name in TABLE_4:
        config = load_config(name)
        resnet, cityscapes = "resnet" in name, "cityscapes" in name
        assert config.optimizer.learning_rate_g == 5e-3
        assert config.optimizer.learning_rate_d == (5e-8 if resnet else 1e-7)
        assert config.optimizer.momentum == 0.9
        assert config.optimizer.warmup_epochs == 5
        assert config.objective.alpha == (0.1 if name == "fcn_cityscapes" else 0.05)
        decay = 5e-4 if resnet and cityscapes else 0.0
        assert config.optimizer.weight_decay == decay
        assert (config.data.crop_size, config.data.batch_size) == (416, 16)
        assert (config.data.min_scale, config.data.max_scale) == (0.5, 2.0)


def flat(config, prefix=""):
    """Return the values by dotted path; `data.options` are one value."""
    values = {}
    for key, value in config.items():
        if hasattr(value, "items") and key != "options":
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = value
    return values


def test_all_configs_have_the_same_fields():
    fields = flat(fcn_voc.get_config()).keys()
    for name in DERIVED:
        assert flat(load_config(name)).keys() == fields, name


def functions(name):
    """Return {name: definition} of the functions of a config's file."""
    source = (ROOT / "configs" / f"{name}.py").read_text()
    nodes = ast.parse(source).body
    return {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}


def assigned(function):
    """Return {field: statement} of the fields that one function of a config sets."""
    statements = [node for node in function.body if isinstance(node, ast.Assign)]
    targets = [ast.unparse(node.targets[0]) for node in statements]
    return {
        target.removeprefix("config."): node
        for target, node in zip(targets, statements, strict=True)
        if target.startswith("config.")
    }


def derivation(name):
    """Return the base of a derived config, and the fields that it states.

    It calls `get_config` of its base, and may pass that on to a function that two
    configs share, in its own file or in that of the other config.
    """
    function = functions(name)["get_config"]
    bases, fields = [], list(assigned(function))
    for call in ast.walk(function):
        if not isinstance(call, ast.Call):
            continue
        module, _, called = ast.unparse(call.func).rpartition(".")
        if called == "get_config":
            bases.append(module)
        elif not module or module in CONFIGS:
            shared = functions(module or name).get(called)
            fields += assigned(shared) if shared else []
    (base,) = bases
    assert len(fields) == len(set(fields)), f"{name} sets a field twice"
    return base, set(fields)


def test_the_complete_config_has_a_comment_for_every_field():
    lines = (ROOT / "configs" / "fcn_voc.py").read_text().splitlines()
    statements = assigned(functions("fcn_voc")["get_config"])
    for field in flat(fcn_voc.get_config()):
        assert "  # " in lines[statements[field].end_lineno - 1], field


@pytest.mark.parametrize("name", DERIVED)
def test_a_derived_config_states_only_fields_that_differ_from_its_base(name):
    base, stated = derivation(name)
    before, after = flat(load_config(base)), flat(load_config(name))
    assert stated == {field for field in after if after[field] != before[field]}
    assert len((ROOT / "configs" / f"{name}.py").read_text().splitlines()) < 50


def test_a_derived_config_cannot_misspell_a_field():
    config = load_config("resnet50_voc")
    with pytest.raises(AttributeError, match='Did you mean "temperature_g"'):
        config.objective.temprature_g = 1.0


LOAD = """
import sys
from absl import flags
from ml_collections import config_flags
config = config_flags.DEFINE_config_file("config")
flags.FLAGS([sys.argv[0], f"--config={sys.argv[1]}"])
print(config.value.model.name)
"""


def test_a_config_loads_from_another_working_directory(tmp_path):
    # After installation the root is on the path, and the working directory is not (-P).
    path = ROOT / "configs" / "resnet50_camvid.py"
    run = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (run.stdout, run.stderr) == ("resnet50\n", "")


@pytest.mark.parametrize("name", ["fcn_cityscapes", "resnet50_cityscapes"])
def test_incomplete_cityscapes_is_refused_unless_the_config_allows_it(name, tmp_path):
    ids = {"train": ["aachen_000000_000019"], "val": ["munster_000000_000019"]}
    for members in miniatures.cityscapes_members(ids):
        miniatures.write_folder(tmp_path / "part", members)
    config = load_config(name).lock()
    config.data.manual_dir = str(tmp_path / "part")
    config.data.data_dir = str(tmp_path / "prepared")
    with pytest.raises(ValueError, match="set data.options.allow_missing=true"):
        builders.load_split(config, "train")
    config.data.options.allow_missing = True
    split = builders.load_split(config, "train")
    assert len(split.examples) == len(builders.load_tiles(config, split)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_takes_two_steps_when_shrunk(
    name, data_dir, tmp_path, four_val_images, monkeypatch
):
    narrow_discriminators(monkeypatch)
    config = shrink(load_config(name), data_dir)
    config.objective.critic_steps = min(config.objective.critic_steps, 2)
    config.data.name = "scenes"
    config.data.options = {}
    config.data.train_split, config.data.val_split = "train", "val"
    if config.distill.teacher:
        config.distill.teacher = str(tmp_path / "teacher")
        save_teacher(config, tmp_path / "teacher")
    train.train(config, tmp_path, allow_change=False)
    assert_trained(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, place", [("fcn_camvid", "camvid"), ("fcn_voc", "VOCdevkit")]
)
def test_real_photographs_train_the_supervised_baseline(
    name, place, data_dir, tmp_path, shared_data, four_val_images
):
    config = shrink(load_config(name), data_dir)
    config.data.manual_dir = str(shared_data / place)
    config.objective.alpha = 0.0
    config.precision = "float32"
    if name == "fcn_voc":
        config.data.train_split = "train"
        config.data.options.allow_missing = True
    train.train(config, tmp_path, allow_change=False)
    assert_trained(tmp_path)
    assert not list((tmp_path / "checkpoints" / "2").glob("discriminator*"))
    adversarial = {"train/loss_adv", "train/loss_d", "train/d_real", "train/d_fake"}
    assert not adversarial & set().union(*read_metrics(tmp_path))
