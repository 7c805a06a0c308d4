"""Distillation, compared with its equations, and in a training step."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import builders, steps, train
from tempseg_jax.builders.config_fields import check_fields
from tempseg_jax.objective import distillation
from tempseg_jax.types import IGNORE_LABEL
from tempseg_jax.workdir.metrics_writer import read_metrics
from tests.support import make_hyper, make_objective, make_state, save_teacher

CLASSES = 3


@pytest.fixture(scope="module")
def logits():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 2, 4, 5, CLASSES)).astype(np.float32)


def test_it_is_the_kl_divergence_times_the_square_of_t(logits):
    student, teacher = logits
    mask = np.random.default_rng(1).random((2, 4, 5)) < 0.6
    expected = []
    for z_s, z_t in zip(student[mask], teacher[mask], strict=True):
        p, q = (np.exp(z / 2.5) / np.exp(z / 2.5).sum() for z in (z_t, z_s))
        expected.append(2.5**2 * np.sum(p * np.log(p / q)))
    loss = distillation.distillation_loss(
        jnp.array(student), jnp.array(teacher), mask=jnp.array(mask), temperature=2.5
    )
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)


def test_at_a_high_temperature_it_compares_the_centered_logits(logits):
    """T² KL tends to the mean over classes of (z_s - z_t)² / 2 (Hinton et al. 2015)."""
    student, teacher = logits
    loss = distillation.distillation_loss(
        jnp.array(student),
        jnp.array(teacher),
        mask=jnp.ones((2, 4, 5), bool),
        temperature=100.0,
    )
    centered = [z - z.mean(axis=-1, keepdims=True) for z in logits]
    expected = np.mean(np.square(centered[0] - centered[1])) / 2
    np.testing.assert_allclose(loss, expected, rtol=0.05)


def test_no_gradient_reaches_the_teacher_and_equal_logits_have_no_loss(logits):
    def loss(student, teacher):
        return distillation.distillation_loss(
            student, teacher, mask=jnp.ones((2, 4, 5), bool), temperature=2.0
        )

    student, teacher = map(jnp.array, logits)
    np.testing.assert_array_equal(jax.grad(loss, argnums=1)(student, teacher), 0)
    np.testing.assert_allclose(loss(student, student), 0, atol=1e-6)
    np.testing.assert_allclose(jax.grad(loss)(student, student), 0, atol=1e-6)


def test_the_pairwise_loss_compares_cosines_of_all_pairs():
    rng = np.random.default_rng(0)
    student = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    teacher = rng.normal(size=(2, 2, 3, 7)).astype(np.float32)
    terms = []
    for s, t in zip(student.reshape(2, 6, 4), teacher.reshape(2, 6, 7), strict=True):
        for i in range(6):
            for j in range(6):
                a, b = (
                    x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
                    for x in (s, t)
                )
                terms.append((a - b) ** 2)
    loss = distillation.pairwise_loss(jnp.array(student), jnp.array(teacher))
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)


def test_the_pairwise_loss_is_finite_for_dead_features_and_ignores_their_scale():
    x = jnp.array(np.random.default_rng(0).normal(size=(1, 2, 2, 4)), jnp.float32)
    dead = x.at[0, 0, 0].set(0.0)
    grad = jax.grad(distillation.pairwise_loss)(dead, x)
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(distillation.pairwise_loss(3 * x, x), 0, atol=1e-10)
    larger = jax.image.resize(x, (1, 4, 4, 4), method="nearest")
    assert np.isfinite(distillation.pairwise_loss(x, larger))


class Pixelwise(nn.Module):
    """A segmenter of 1x1 convolutions that keeps its features, as the real ones do."""

    channels: int = 8

    @nn.compact
    def __call__(self, image, *, train):
        x = image.astype(jnp.float32) / 128 - 1
        x = nn.relu(nn.Conv(self.channels, (1, 1))(x))
        self.sow("intermediates", "features", x)
        return nn.Conv(CLASSES, (1, 1))(x)


class Scores(nn.Module):
    """A discriminator whose score is the first channel."""

    @nn.compact
    def __call__(self, x, *, train):
        return self.param("gain", nn.initializers.ones, ()) * x[..., :1]


HYPER = make_hyper(
    seed=7,
    learning_rate_g=0.5,
    momentum=0.0,
    temperature_d=2.0,
    alpha=0.1,
    distill_weight=2.0,
    distill_temperature=3.0,
    pairwise_weight=4.0,
)
STEP = jax.jit(steps.train_step, static_argnames="objective")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, (2, 8, 8)).astype(np.uint8)
    label[:, :3] = IGNORE_LABEL
    image = rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    return {"image": jnp.array(image), "label": jnp.array(label)}


def test_a_step_adds_both_terms_and_leaves_the_teacher_as_it_is(batch):
    objective = make_objective(
        Pixelwise(), Scores(), teacher=Pixelwise(5), pairwise=True, real="teacher"
    )
    variables = Pixelwise(5).init(jax.random.key(9), batch["image"], train=False)
    hyper = HYPER._replace(teacher={"params": variables["params"]})
    state = make_state(Pixelwise(), Scores(), size=8, num_classes=CLASSES)
    after, m = STEP(state, batch, hyper, objective=objective)
    expected = m["loss_seg"] + 0.1 * m["loss_adv"]
    expected += 2.0 * m["loss_distill"] + 4.0 * m["loss_pairwise"]
    np.testing.assert_allclose(m["loss"], expected, rtol=1e-5)
    assert m["loss_distill"] > 0 and m["loss_pairwise"] > 0
    # D sees the teacher's probabilities at T_D as X.
    logits = Pixelwise(5).apply(hyper.teacher, batch["image"], train=False)
    p = np.array(jax.nn.softmax(logits / 2.0))[..., 0]
    p[np.asarray(batch["label"]) == IGNORE_LABEL] = 0
    np.testing.assert_allclose(m["d_real"], p.mean(), rtol=1e-5)

    plain = dataclasses.replace(objective, teacher=None, pairwise=False, real="one_hot")
    same = state.segmenter.params
    alone, _ = STEP(state, batch, HYPER, objective=plain)
    changed = jax.tree.map(
        lambda a, b, c: np.any(a != b) and np.any(a != c),
        after.segmenter.params,
        alone.segmenter.params,
        same,
    )
    assert all(jax.tree.leaves(changed))


def test_the_teacher_runs_once_in_a_step_and_d_sees_it_in_every_critic_step(batch):
    shapes = []

    class Recorded(Pixelwise):
        @nn.compact
        def __call__(self, image, *, train):
            shapes.append(image.shape)
            return super().__call__(image, train=train)

    more = batch | {
        "unlabeled_image": batch["image"],
        "unlabeled_visible": jnp.ones(batch["label"].shape, bool),
    }
    teacher = Recorded(5)
    variables = teacher.init(jax.random.key(9), batch["image"], train=False)
    hyper = HYPER._replace(teacher={"params": variables["params"]})
    objective = make_objective(
        Pixelwise(),
        Scores(),
        teacher=teacher,
        real="teacher",
        critic_steps=3,
        unlabeled_adversarial=True,
    )
    state = make_state(Pixelwise(), Scores(), size=8, num_classes=CLASSES)
    shapes.clear()
    _, metrics = STEP(state, more, hyper, objective=objective)
    assert shapes == [(4, 8, 8, 3)]  # labeled and unlabeled images
    plain = dataclasses.replace(objective, critic_steps=1, unlabeled_adversarial=False)
    _, once = STEP(state, batch, hyper, objective=plain)
    # D(X) has another gain of D in the last critic step, and the same maps.
    gain = metrics["d_real"] / once["d_real"]
    np.testing.assert_allclose(metrics["d_fake"] / once["d_fake"], gain, rtol=1e-5)


def test_a_student_learns_the_teachers_predictions_without_labels(batch):
    unlabeled = batch | {
        "label": jnp.full_like(batch["label"], IGNORE_LABEL),
        "unlabeled_image": batch["image"],
        "unlabeled_visible": jnp.ones(batch["label"].shape, bool),
    }
    objective = make_objective(Pixelwise(16), None, teacher=Pixelwise(5))
    variables = Pixelwise(5).init(jax.random.key(9), batch["image"], train=False)
    hyper = HYPER._replace(
        teacher={"params": variables["params"]},
        learning_rate_schedule=np.ones(80, np.float32),
    )
    state = make_state(Pixelwise(16), None, size=8, num_classes=CLASSES)
    losses = []
    for _ in range(60):
        state, metrics = STEP(state, unlabeled, hyper, objective=objective)
        losses.append(float(metrics["loss_distill"]))
        assert metrics["loss_seg"] == 0
    assert losses[-1] < 0.1 * losses[0]


def test_a_run_distills_another_run_and_refuses_other_classes(
    demo_config, tmp_path, monkeypatch
):
    demo_config.update_from_flattened_dict(
        {
            "steps": 2,
            "evaluate_every_epochs": 0.0,
            "log_every_steps": 1,
            "objective.alpha": 0.0,
        }
    )
    save_teacher(demo_config, tmp_path / "teacher")
    demo_config.distill.teacher = str(tmp_path / "teacher")
    demo_config.distill.pairwise = 1.0
    train.train(demo_config, tmp_path / "student", allow_change=False)
    lines = read_metrics(tmp_path / "student")
    assert lines[0]["train/loss_distill"] > 0
    assert lines[-1]["train/loss_pairwise"] > 0

    def trained_once_more(folder):
        teacher = load(folder)
        teacher.variables = jax.tree.map(lambda x: x + 1, teacher.variables)
        return teacher

    load = train.restore.load
    with monkeypatch.context() as patch:
        patch.setattr(train.restore, "load", trained_once_more)
        with pytest.raises(ValueError, match="data have changed .*teacher weights: "):
            train.train(demo_config, tmp_path / "student", allow_change=False)

    def renamed(config, split):
        loaded = load_split(config, split)
        return dataclasses.replace(loaded, class_names=tuple("abcdefgh"))

    load_split = builders.load_split
    monkeypatch.setattr(builders.data, "load_split", renamed)
    with pytest.raises(ValueError, match="distill.teacher: .* was trained for the cl"):
        train.train(demo_config, tmp_path / "other", allow_change=False)


@pytest.mark.parametrize(
    "field, value", [("objective.real", "teacher"), ("distill.pairwise", 1.0)]
)
def test_a_term_that_needs_a_teacher_is_refused_without_one(demo_config, field, value):
    demo_config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=f"distill.teacher: empty, but {field}"):
        check_fields(demo_config)
