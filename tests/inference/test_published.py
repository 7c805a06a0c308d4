"""A published network round-trips through a folder and through a simulated Hub."""

import fnmatch
import json
import shutil

import huggingface_hub
import jax
import numpy as np
import pytest

import tempseg_jax
from tempseg_jax.inference import published
from tempseg_jax.inference.model_card import model_card
from tempseg_jax.io.json_files import write_json
from tempseg_jax.workdir import saved_config
from tests.inference.test_predict_files import script
from tests.support import load_config

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
EVALUATION = {
    "checkpoint": 7,
    "dataset": "scenes",
    "split": "val",
    "inference": {"window": None, "stride": None, "scales": [1.0], "flip": False},
    "images": 64,
    "miou": 0.8235,
    "pacc": 0.95,
    "nll": 0.1234,
    "ece": 0.01,
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder that stands for the Hub."""
    root = tmp_path / "hub"

    class Api:
        def create_repo(self, repo, *, private, exist_ok):
            (root / repo).mkdir(parents=True, exist_ok=exist_ok)

        def upload_folder(self, *, repo_id, folder_path, allow_patterns):
            for path in folder_path.rglob("*"):
                name = str(path.relative_to(folder_path))
                if any(fnmatch.fnmatch(name, x) for x in allow_patterns):
                    shutil.copyfile(path, root / repo_id / name)

    def snapshot_download(repo, *, revision, allow_patterns):
        if not (root / repo).is_dir():
            raise OSError(f"404 Client Error: {repo}")
        copy = tmp_path / "cache" / repo
        for name in allow_patterns:
            if (root / repo / name).exists():
                copy.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / repo / name, copy / name)
        return str(copy)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return root


@pytest.fixture(scope="module")
def predictor(saved_run):
    return tempseg_jax.load(saved_run)


def assert_same(loaded, predictor):
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, predictor.variables)
    np.testing.assert_array_equal(loaded(IMAGE), predictor(IMAGE))
    assert loaded.class_names == predictor.class_names and loaded.step == 7
    assert loaded.segmenter == predictor.segmenter
    assert loaded.temperature_g == predictor.temperature_g
    np.testing.assert_array_equal(loaded.palette, predictor.palette)


def test_a_folder_gives_the_same_predictor(saved_run, predictor, tmp_path, monkeypatch):
    out = tmp_path / "shared"
    script("publish", monkeypatch, f"--workdir={saved_run}", f"--out={out}")
    assert_same(tempseg_jax.load(out), predictor)
    assert tempseg_jax.load(out, flip=True, precision="bfloat16").settings.flip


def test_the_hub_gives_the_same_predictor(
    saved_run, predictor, hub, monkeypatch, capsys
):
    script("publish", monkeypatch, f"--workdir={saved_run}", "--repo=me/net")
    assert 'tempseg_jax.load("hf://me/net")' in capsys.readouterr().out
    assert_same(tempseg_jax.load("hf://me/net"), predictor)
    with pytest.raises(ValueError, match="hf://me/other: cannot be downloaded .404"):
        tempseg_jax.load("hf://me/other")
    (hub / "me" / "other").mkdir()
    with pytest.raises(ValueError, match="has no segmenter.json"):
        tempseg_jax.load("hf://me/other")


def test_only_what_was_published_is_uploaded(saved_run, tmp_path, hub, monkeypatch):
    out = tmp_path / "shared"
    out.mkdir()
    (out / "secret.txt").write_text("")
    script(
        *("publish", monkeypatch, f"--workdir={saved_run}", f"--out={out}"),
        "--repo=me/net",
    )
    assert (out / "secret.txt").exists()
    uploaded = {path.name for path in (hub / "me" / "net").iterdir()}
    assert "secret.txt" not in uploaded
    assert uploaded == {path.name for path in out.iterdir()} - {"secret.txt"}


def test_a_workdir_is_not_overwritten(saved_run, tmp_path, monkeypatch):
    workdir = shutil.copytree(saved_run, tmp_path / "run")
    before = {x: x.read_bytes() for x in workdir.rglob("*") if x.is_file()}
    with pytest.raises(SystemExit, match="run: is the workdir of a run; choose"):
        script("publish", monkeypatch, f"--workdir={saved_run}", f"--out={workdir}")
    assert before == {x: x.read_bytes() for x in workdir.rglob("*") if x.is_file()}


def test_the_card_has_the_scores_of_this_checkpoint_and_what_was_not_measured(
    saved_run, tmp_path, monkeypatch
):
    workdir = shutil.copytree(saved_run, tmp_path / "run")
    for path in workdir.glob("eval-*.json"):
        path.unlink()
    write_json(workdir / "eval-val.json", EVALUATION)
    write_json(workdir / "eval-test.json", EVALUATION | {"checkpoint": 3, "miou": 0.1})
    out = tmp_path / "shared"
    script(
        *("publish", monkeypatch, f"--workdir={workdir}", f"--out={out}"),
        "--license=apache-2.0",
    )
    card = (out / "README.md").read_text()
    row = (
        "| scenes val, default windows, scales [1.0] | 64 | 82.35 % | 95.00 % | 0.1234"
    )
    assert row in card and "10.00 %" not in card
    assert "license: apache-2.0" in card.split("---")[1]
    assert f'tempseg_jax.load("{out}")' in card
    assert "Not measured: scores on images that neither trained the netw" in card
    assert "| 1 | stone | 120, 130, 160 |" in card


def test_splits_of_voc_that_share_images_are_not_independent(
    saved_run, predictor, tmp_path
):
    workdir = shutil.copytree(saved_run, tmp_path / "run")
    saved_config.claim(workdir, load_config("fcn_voc"), allow_change=True)
    for split in ("train", "trainval"):  # it was trained on train_aug
        write_json(workdir / f"eval-{split}.json", EVALUATION | {"split": split})
        card = model_card(predictor, workdir, address="net", license_name="other")
        assert "Not measured: scores on images that neither" in card


def test_a_split_without_labels_is_no_independent_score(saved_run, predictor, tmp_path):
    workdir = shutil.copytree(saved_run, tmp_path / "run")
    empty = dict.fromkeys(("miou", "pacc", "nll", "ece"))
    for split, scores in (("test", empty), ("train", {})):
        write_json(
            workdir / f"eval-{split}.json", EVALUATION | {"split": split} | scores
        )
    card = model_card(predictor, workdir, address="net", license_name="other")
    assert "| scenes test, default windows, scales [1.0] | 64 | – | – | – | – |" in card
    assert "Not measured: scores on images that neither trained" in card
    write_json(workdir / "eval-test.json", EVALUATION | {"split": "test"})
    card = model_card(predictor, workdir, address="net", license_name="other")
    assert "Not measured: the variation over seeds" in card


def test_the_config_that_is_shared_names_no_folder_of_this_machine(
    saved_run, demo_config, tmp_path, monkeypatch
):
    workdir = shutil.copytree(saved_run, tmp_path / "run")
    demo_config.data.manual_dir = "/home/me/own"
    demo_config.data.data_dir = "/home/me/prepared"
    demo_config.model.pretrained = "/home/me/vgg16.npz"
    demo_config.distill.teacher = "hf://me/teacher"
    saved_config.claim(workdir, demo_config, allow_change=True)
    out = tmp_path / "shared"
    script("publish", monkeypatch, f"--workdir={workdir}", f"--out={out}")
    for path in (out / "config.json", out / "README.md"):
        assert "/home/me" not in path.read_text()
    shared = json.loads((out / "config.json").read_text())
    assert shared["model"]["pretrained"] == "vgg16.npz"
    assert shared["distill"]["teacher"] == "hf://me/teacher"
    assert shared["optimizer"] == demo_config.optimizer.to_dict()
    assert "| initial weights | vgg16.npz |" in (out / "README.md").read_text()


def test_damage_is_named(saved_run, tmp_path, monkeypatch):
    out = tmp_path / "shared"
    script("publish", monkeypatch, f"--workdir={saved_run}", f"--out={out}")
    weights = out / published.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="weights.safetensors: is damaged"):
        tempseg_jax.load(out)
    description = json.loads((out / published.DESCRIPTION).read_text())
    description["model"]["width"] = 0.1
    data[-5] ^= 1
    weights.write_bytes(data)
    write_json(out / published.DESCRIPTION, description)
    with pytest.raises(ValueError, match="are not those of the network"):
        tempseg_jax.load(out)
    (out / published.DESCRIPTION).write_text("{")
    with pytest.raises(ValueError, match="segmenter.json: cannot be read"):
        tempseg_jax.load(out)


def test_without_a_target_the_command_says_so(saved_run, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="neither --out nor --repo is given"):
        script("publish", monkeypatch, f"--workdir={saved_run}")
