"""A run of the first release can be resumed, evaluated and used for prediction."""

import json
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

import tempseg_jax
from configs import fcn_voc
from tempseg_jax import evaluate, train
from tempseg_jax.inference.settings import DEFAULT_SETTINGS
from tempseg_jax.workdir import formats, saved_config
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.metrics_writer import read_metrics
from tests.support import ROOT

FIRST_RELEASE = ROOT / "tests" / "first_release" / "workdir"


@pytest.fixture
def workdir(tmp_path):
    """A copy of the run: saved after step 2 of 4."""
    return shutil.copytree(FIRST_RELEASE, tmp_path / "run")


@pytest.fixture
def config(workdir, data_dir) -> ConfigDict:
    """The config of the run, completed; the scenes are in the tests' folder."""
    config = saved_config.read_config(workdir)
    config.data.data_dir = data_dir
    return config


def test_every_field_that_the_first_release_lacked_has_a_default(workdir):
    # A new field of fcn_voc.py needs a default in formats.py, because without one old
    # runs can no longer be used.
    def fields(config, prefix=""):
        for name, value in config.items():
            if isinstance(value, ConfigDict) and name != "options":
                yield from fields(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    completed = saved_config.read_config(workdir)
    assert sorted(fields(completed)) == sorted(fields(fcn_voc.get_config()))


@pytest.mark.slow
def test_it_resumes_with_the_losses_of_the_first_release(workdir, config):
    assert not train.train(config, workdir, allow_change=False)
    checkpoints = Checkpoints(workdir)
    assert checkpoints.steps() == [2, 4]
    lines = read_metrics(workdir)
    assert lines[:2] == read_metrics(FIRST_RELEASE)
    # Logged by the first release when it resumed from this checkpoint.
    expected = {
        "train/loss_seg": [1.8547579050064087, 1.7744532823562622],
        "train/loss_adv": [1.2399266958236694, 0.6581191420555115],
        "train/loss_d": [2.6549947261810303, 1.5518351793289185],
        "train/grad_norm_g": [1.9245233535766602, 1.7386921644210815],
        "train/grad_norm_d": [273.35321044921875, 274.3407897949219],
    }
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for name, values in expected.items():
        actual = [line[name] for line in lines[2:]]
        np.testing.assert_allclose(actual, values, rtol=1e-3, err_msg=name)
    assert json.loads((workdir / "config.json").read_text())["format"] == formats.FORMAT
    assert saved_config.read_saved(workdir).changes == []


def test_it_trains_on_with_another_config_and_the_changes_are_said(
    workdir, config, capsys
):
    config.optimizer.learning_rate_g = 1e-3
    capsys.readouterr()
    assert not train.train(config, workdir, allow_change=True)
    output = capsys.readouterr().out
    assert output.count("config.json: saved by an older version, and completed") == 1


def test_it_is_evaluated_with_the_same_scores(workdir, config):
    report = evaluate.evaluate(
        config,
        workdir,
        checkpoint="best",
        split_name=None,
        settings=DEFAULT_SETTINGS,
        fit=False,
    )
    assert report["checkpoint"] == 2
    # Printed by the first release: 68.48 pAcc, 8.56 mIoU, NLL 1.9672 nats at T = 1.
    np.testing.assert_allclose(report["pacc"], 0.6848, atol=1e-3)
    np.testing.assert_allclose(report["miou"], 0.0856, atol=1e-3)
    nll = report["calibration"]["one"]["nll"]
    np.testing.assert_allclose(nll, 1.9672, atol=1e-3)


def test_it_predicts(workdir):
    (workdir / "config.json").unlink()  # the checkpoint alone is read
    predictor = tempseg_jax.load(workdir)
    assert (predictor.name, predictor.step, predictor.dataset) == ("fcn8s", 2, "scenes")
    image = np.full((40, 56, 3), 120, np.uint8)
    np.testing.assert_array_equal(predictor(image), np.zeros((40, 56)))
    # What the first release predicted from this checkpoint.
    expected = [0.15042, 0.12041, 0.1209, 0.12373, 0.12084, 0.12271, 0.12099, 0.12]
    p = predictor.probabilities(image)
    np.testing.assert_allclose(p[20, 28], expected, atol=1e-4)
