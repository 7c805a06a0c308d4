"""All regularizers at once, trained through the config and restored for prediction."""

import math

import numpy as np
import pytest

import tempseg_jax
from tempseg_jax import builders, train
from tempseg_jax.builders.plan import Plan
from tempseg_jax.workdir.metrics_writer import read_metrics
from tests.support import save_teacher


def test_they_train_together_and_the_checkpoint_predicts(demo_config, tmp_path):
    demo_config.update_from_flattened_dict(
        {
            "steps": 2,
            "evaluate_every_epochs": 0.0,
            "log_every_steps": 1,
            "data.train_split": "val",  # fewer images to count
            "model.drop_connect": 0.5,
            "model.dropout": 0.0,
            "objective.alpha": 0.0,
            "objective.class_weights": "median",
            "objective.hard_pixels": 0.5,
            "objective.label_smoothing": 0.1,
            "objective.temperature_schedule": "linear",
            "optimizer.l1": 1e-3,
        }
    )
    train.train(demo_config, tmp_path, allow_change=False)
    lines = read_metrics(tmp_path)
    assert [x["step"] for x in lines] == [1, 2]
    assert all(math.isfinite(x["train/loss"]) for x in lines)
    predictor = tempseg_jax.load(tmp_path)
    assert predictor.segmenter.drop_connect == 0.5
    assert predictor.segmenter.backbone.drop_connect == 0.5
    assert predictor.temperature_g == 1.0  # at the end of the schedule
    split = builders.load_split(demo_config, "val")
    assert predictor(np.zeros((32, 32, 3), np.uint8)).max() < len(split.class_names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "head"),
    [("resnet50_v15", "deeplabv3plus"), ("mobilenet_v3_large", "lraspp")],
)
def test_they_train_a_network_with_a_head_that_another_network_teaches(
    demo_config, tmp_path, network, head
):
    save_teacher(demo_config, tmp_path / "teacher")  # an FCN-8s
    demo_config.update_from_flattened_dict(
        {
            "steps": 2,
            "evaluate_every_epochs": 0.0,
            "log_every_steps": 1,
            "model.name": network,
            "model.head": head,
            "model.output_stride": 16,
            "model.drop_connect": 0.5,
            "distill.teacher": str(tmp_path / "teacher"),
            "distill.pairwise": 1.0,
            "objective.auxiliary": 0.4 if network == "resnet50_v15" else 0.0,
        }
    )
    train.train(demo_config, tmp_path / "student", allow_change=False)
    first, last = read_metrics(tmp_path / "student")
    for name in ("loss", "loss_seg", "loss_adv", "loss_distill", "loss_pairwise"):
        assert math.isfinite(last[f"train/{name}"]) and last[f"train/{name}"] > 0
    assert last["train/loss_distill"] != first["train/loss_distill"]
    predictor = tempseg_jax.load(tmp_path / "student")
    assert predictor(np.zeros((32, 32, 3), np.uint8)).shape == (32, 32)


def test_the_temperature_of_a_step_is_that_of_the_schedule(demo_config):
    demo_config.objective.temperature_schedule = "cosine"
    demo_config.objective.temperature_adv = 2.0
    hyper = builders.hyperparameters(demo_config, Plan(5, 1, 1))
    factor = hyper.temperature_schedule
    np.testing.assert_allclose(
        factor[:5] * hyper.temperature_seg,
        0.75 - 0.25 * np.cos(np.pi * np.arange(5) / 4),
        rtol=1e-5,
    )
    np.testing.assert_allclose(factor[4] * hyper.temperature_adv, 4.0)
    assert builders.training_temperature(demo_config) == 1.0
