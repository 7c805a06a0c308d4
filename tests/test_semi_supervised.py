"""Runs with unlabeled images: their config, their lists, and resuming."""

import os
import signal

import jax
import numpy as np
import pytest

from tempseg_jax import builders, mesh, train
from tempseg_jax.builders.config_fields import check_fields
from tempseg_jax.builders.data import divide_by_labels
from tempseg_jax.builders.plan import Plan
from tempseg_jax.data.catalog import Split
from tempseg_jax.workdir import saved_config
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.metrics_writer import read_metrics
from tests import miniatures
from tests.support import make_demo_config, narrow_discriminators

STEPS = 3
SEMI = {
    "data.labeled_fraction": 1 / 8,
    "model.discriminator": "fcn",
    "objective.adversary": "dcgan",
    "semi.alpha": 0.1,
    "semi.weight": 0.5,
    "semi.start": 1 / 3,
}


@pytest.fixture(scope="module", autouse=True)
def _narrow_discriminator():
    with pytest.MonkeyPatch.context() as patch:
        narrow_discriminators(patch)
        yield


@pytest.fixture(scope="module")
def config(data_dir):
    config = make_demo_config(data_dir)
    config.update_from_flattened_dict(
        SEMI
        | {
            "steps": STEPS,
            "log_every_steps": 1,
            "evaluate_every_epochs": 0.0,
            "optimizer.learning_rate_g": 0.5,
            "optimizer.learning_rate_d": 1e-3,
        }
    )
    return config


def changed(config, fields):
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict(fields)
    return other


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("semi")
    train.train(config, folder, allow_change=False)
    return folder


def state_of(config, folder):
    checkpoints = Checkpoints(folder)
    split = builders.load_split(config, "val")
    _, state, _ = builders.restore_state(
        config,
        checkpoints,
        split,
        step=checkpoints.resolve("latest"),
        devices=mesh.local_mesh(),
    )
    return state


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.slow
def test_the_log_has_the_terms_of_images_without_labels(run):
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [1, 2, 3]
    for line in lines:
        m = {k.removeprefix("train/"): v for k, v in line.items()}
        assert 0 <= m["semi_share"] <= 1
        assert 0 < m["confidence_labeled"] < 1 and 0 < m["confidence_unlabeled"] < 1
        total = m["loss_seg"] + 0.05 * m["loss_adv"] + 0.1 * m["loss_adv_unlabeled"]
        total += 0.5 * m["loss_semi"] * (line["step"] > 1)
        np.testing.assert_allclose(m["loss"], total, rtol=1e-5)


@pytest.mark.slow
def test_the_images_with_and_without_labels_are_listed_and_nested(run, config):
    def ids(name):
        return (run / f"{name}_images.txt").read_text().splitlines()

    images = [x["id"] for x in builders.load_split(config, "train").examples]
    assert len(ids("labeled")) == 64
    assert sorted(ids("labeled") + ids("unlabeled")) == sorted(images)
    assert not (run / "train_images.txt").exists()
    quarter = changed(config, {"data.labeled_fraction": 1 / 4})
    larger = builders.load_training_split(quarter)
    assert set(ids("labeled")) < {x["id"] for x in larger.examples}


@pytest.mark.slow
def test_an_interrupted_run_resumes_bitwise(run, config, tmp_path, monkeypatch):
    batches = builders.training_batches

    def batches_and_sigterm(*args, **kwargs):
        for batch in batches(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(builders, "training_batches", batches_and_sigterm)
        assert train.train(config, tmp_path, allow_change=False)
    assert Checkpoints(tmp_path).steps() == [1]
    train.train(config, tmp_path, allow_change=False)
    assert_equal(state_of(config, tmp_path), state_of(config, run))


OFF = {"data.labeled_fraction": 1.0, "semi.alpha": 0.0, "semi.weight": 0.0}
NO_EFFECT = {"data.labeled_seed": 5, "data.unlabeled_batch_size": 2, "semi.start": 1.0}


def test_with_all_labels_and_no_weights_it_is_the_adversarial_run(config):
    """The step has the same static part and numbers, and the batches are the same."""
    plain = changed(config, OFF)
    same = changed(config, OFF | NO_EFFECT | {"semi.threshold": 0.9})
    plan = Plan.of(config, images=512)
    objectives, hypers, batches = [], [], []
    for own in (plain, same):
        objectives.append(builders.build_objective(own, num_classes=8))
        hyper = builders.hyperparameters(own, plan)
        hypers.append(hyper._replace(semi_threshold=0.0, semi_start=0))
        labeled, others = divide_by_labels(own, builders.load_split(own, "train"))
        assert others is None and len(labeled.examples) == 512
        batches.append(next(builders.training_batches(own, labeled, start_step=1)))
    assert objectives[0] == objectives[1] and not objectives[0].uses_unlabeled
    assert batches[0].keys() == {"image", "label"}
    assert_equal(*hypers)
    assert_equal(*batches)


@pytest.mark.slow
def test_with_all_labels_and_no_weights_the_trained_state_is_bitwise_the_same(
    config, tmp_path
):
    configs = {"plain": OFF, "same": OFF | NO_EFFECT}
    states = []
    for name, fields in configs.items():
        own = changed(config, fields)
        train.train(own, tmp_path / name, allow_change=False)
        assert not (tmp_path / name / "unlabeled_images.txt").exists()
        states.append(state_of(own, tmp_path / name))
    assert_equal(*states)


@pytest.mark.slow
def test_images_of_a_folder_are_trained_on_without_labels(config, tmp_path):
    files = {f"{i}.jpg": miniatures.jpeg(i, height=40, width=50) for i in range(5)}
    miniatures.write_folder(tmp_path / "images", files)
    fields = {"data.unlabeled_dir": str(tmp_path / "images"), "steps": 1}
    own = changed(config, fields | {"data.unlabeled_batch_size": 4})
    own.data.data_dir = config.data.data_dir
    train.train(own, tmp_path / "run", allow_change=False)
    listed = (tmp_path / "run" / "unlabeled_images.txt").read_text().split()
    assert listed == ["0", "1", "2", "3", "4"]
    shared = saved_config.without_folders(tmp_path / "run")
    assert shared["data"]["unlabeled_dir"] == "images"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data.labeled_fraction": 1.0},
            "data.labeled_fraction: 1.0 leaves no",
        ),
        ({"objective.alpha": 0.0}, "objective.alpha: 0 trains no discriminator"),
        (
            {"accumulate": 2},
            "semi.alpha: .* needs the whole batch",
        ),
        ({"model.discriminator": "dcgan"}, "'dcgan' has no score for each.*choose fcn"),
        ({"objective.adversary": "hinge"}, "'hinge' are not prob.*lsgan, dcgan, minim"),
        ({"objective.adversary": "wgan_gp"}, "'wgan_gp' are not probabilities"),
        ({"semi.start": 1.0}, "semi.start: 1.0 is after the last step.*below 1"),
    ],
)
def test_what_a_term_needs_is_said_in_one_line(config, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        check_fields(changed(config, fields))
    assert "\n" not in str(error.value)


def test_a_fraction_that_leaves_no_image_without_labels_is_refused(config):
    examples = [{"id": str(i)} for i in range(10)]
    images = Split("a", "train", examples, ("x",), np.zeros((1, 3), np.uint8))
    own = changed(config, {"data.labeled_fraction": 0.96})
    with pytest.raises(ValueError, match="data.labeled_fraction: 0.96 of 10 images"):
        divide_by_labels(own, images)
    labeled, others = divide_by_labels(
        changed(config, {"data.labeled_fraction": 0.9}), images
    )
    assert (len(labeled.examples), len(others.examples)) == (9, 1)


@pytest.mark.parametrize(
    ("labeled", "message"),
    [
        (2, "data.batch_size: 4 is more than the 2 labeled images to train on"),
        (511, "data.unlabeled_batch_size: 4 is more than the 1 unlabeled images"),
    ],
)
def test_a_batch_with_more_images_than_there_are_is_refused(config, labeled, message):
    own = changed(config, {"data.labeled_fraction": labeled / 512})
    assert own.data.batch_size == 4
    with pytest.raises(ValueError, match=message):
        builders.load_run_data(own)


def test_l_adv_alone_needs_neither_scores_per_pixel_nor_probabilities(config):
    fields = {"semi.weight": 0.0, "model.discriminator": "dcgan"}
    own = changed(config, fields | {"objective.adversary": "hinge"})
    objective = builders.build_objective(own, num_classes=8)
    assert objective.unlabeled_adversarial and not objective.self_training


def test_the_start_is_a_part_of_the_steps(config):
    plan = Plan(20_001, warmup_steps=0, evaluate_every=0)
    assert builders.hyperparameters(config, plan).semi_start == 6667


def test_a_batch_size_that_the_devices_do_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [jax.local_devices()[0]] * 2)
    with pytest.raises(ValueError, match="unlabeled_batch_size: 3 images.*2 devices"):
        mesh.data_mesh(batch_size=4, unlabeled_batch_size=3)
