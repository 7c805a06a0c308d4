"""L_adv and L_semi on unlabeled images, in closed form and in a step."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import steps
from tempseg_jax.objective import semi_supervised
from tempseg_jax.objective.adversaries import ADVERSARIES
from tempseg_jax.types import IGNORE_LABEL
from tests.support import make_hyper, make_objective, make_state

CLASSES = 3
LABELED, UNLABELED = 4, 2
STEP = jax.jit(steps.train_step, static_argnames="objective")
HYPER = make_hyper(
    seed=7,
    temperature_seg=0.5,
    temperature_adv=0.7,
    temperature_d=2.0,
    unlabeled_alpha=0.2,
    semi_weight=0.4,
    semi_threshold=0.5,
    semi_start=1,
)


class Pixelwise(nn.Module):
    """A segmenter of 1x1 convolutions: no image depends on another one."""

    @nn.compact
    def __call__(self, image, *, train):
        x = image.astype(jnp.float32) / 128 - 1
        return nn.Conv(CLASSES, (1, 1))(nn.tanh(nn.Conv(16, (1, 1))(x)))


class Score(nn.Module):
    """A discriminator with a score for each pixel."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Conv(1, (1, 1))(nn.tanh(nn.Conv(8, (1, 1))(x)))


OBJECTIVE = make_objective(
    Pixelwise(),
    Score(),
    adversary=ADVERSARIES["dcgan"],
    unlabeled_adversarial=True,
    self_training=True,
)
LABELED_ONLY = dataclasses.replace(
    OBJECTIVE, unlabeled_adversarial=False, self_training=False
)


def make_batch():
    """Four labeled images, a quarter of them void, and two others with padding."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, (LABELED, 8, 8)).astype(np.uint8)
    label[:, :2] = IGNORE_LABEL
    visible = np.ones((UNLABELED, 8, 8), bool)
    visible[:, :, 5:] = False
    image = rng.integers(0, 256, (LABELED + UNLABELED, 8, 8, 3)).astype(np.uint8)
    return {
        "image": jnp.array(image[:LABELED]),
        "label": jnp.array(label),
        "unlabeled_image": jnp.array(image[LABELED:]),
        "unlabeled_visible": jnp.array(visible),
    }


@pytest.fixture(scope="module")
def batch():
    return make_batch()


def labeled_part(batch):
    return {name: batch[name] for name in ("image", "label")}


def initial_state():
    return make_state(Pixelwise(), Score(), size=8, num_classes=CLASSES)


@pytest.fixture(scope="module")
def state():
    return initial_state()


def test_l_semi_is_the_mean_nats_of_the_argmax_of_the_chosen_pixels():
    # p = (3/4, 1/4), (1/3, 2/3), (1/2, 1/2) with T = 1
    logits = jnp.log(jnp.array([3.0, 1, 1, 2, 5, 5])).reshape(1, 1, 3, 2)
    chosen = jnp.array([[[True, True, False]]])

    def loss(logits, temperature=1.0, chosen=chosen):
        return semi_supervised.self_training_loss(
            logits, chosen=chosen, temperature=temperature
        )

    expected = -(np.log(3 / 4) + np.log(2 / 3)) / 2
    np.testing.assert_allclose(loss(logits), expected, rtol=1e-6)
    sharper = -(np.log(9 / 10) + np.log(4 / 5)) / 2  # T = 1/2 squares odds of 3 and 2
    np.testing.assert_allclose(loss(logits, 0.5), sharper, rtol=1e-6)
    gradient = jax.grad(loss)(logits)[0, 0]
    np.testing.assert_allclose(gradient[0], np.array([-1, 1]) / 4 / 2, rtol=1e-5)
    np.testing.assert_array_equal(gradient[2], 0)
    assert loss(logits, chosen=jnp.zeros((1, 1, 3), bool)) == 0


def test_a_pixel_is_trusted_above_the_threshold_and_never_in_the_padding():
    confidence = jnp.array([[[0.1, 0.2, 0.3, 0.9]]])
    visible = jnp.array([[[True, True, True, False]]])
    chosen = semi_supervised.trusted(confidence, visible=visible, threshold=0.2)
    np.testing.assert_array_equal(chosen, [[[False, False, True, False]]])


@pytest.mark.parametrize("name", ["lsgan", "dcgan", "minimax"])
def test_the_confidence_of_the_best_d_is_the_probability_of_ground_truth(name):
    """At a point that is 3 of 10 pixels of X and 6 of 10 of p, it is 1/3."""
    adversary = ADVERSARIES[name]
    best = 1 / 3 if name == "lsgan" else np.log(1 / 2)

    def loss(d):
        real = jnp.where(jnp.arange(10) < 3, d, 0.7)[None]
        fake = jnp.where(jnp.arange(10) < 6, d, 0.7)[None]
        return adversary.discriminator_loss(real, fake)

    assert abs(jax.grad(loss)(best)) < 1e-6
    np.testing.assert_allclose(adversary.confidence(jnp.array(best)), 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(4, 2), (2, 4), (3, 5), (4, 4), (1, 1)])
def test_every_part_of_a_joined_batch_has_the_ratio_of_the_whole(sizes):
    b, u = sizes
    batch = {
        "image": jnp.full((b, 2, 2, 3), 1, jnp.uint8)
        * jnp.arange(b)[:, None, None, None],
        "label": jnp.full((b, 2, 2), 7, jnp.uint8),
        "unlabeled_image": jnp.full((u, 2, 2, 3), 100, jnp.uint8),
        "unlabeled_visible": jnp.ones((u, 2, 2), bool).at[:, 1].set(False),
    }
    batch["image"] = batch["image"].astype(jnp.uint8)
    joined = semi_supervised.join(batch)
    is_labeled = np.asarray(joined["label"][:, 0, 0]) == 7
    parts = is_labeled.reshape(np.gcd(b, u), -1).sum(axis=1)
    np.testing.assert_array_equal(parts, b // np.gcd(b, u))
    images = semi_supervised.separate(joined["image"], labeled=b)
    np.testing.assert_array_equal(images[0], batch["image"])
    np.testing.assert_array_equal(images[1], batch["unlabeled_image"])
    _, visible = semi_supervised.separate(joined["visible"], labeled=b)
    np.testing.assert_array_equal(visible, batch["unlabeled_visible"])
    _, label = semi_supervised.separate(joined["label"], labeled=b)
    np.testing.assert_array_equal(label, IGNORE_LABEL)


def test_the_terms_of_a_step_are_those_of_a_slow_reference(batch, state):
    state = state.replace(step=jnp.int32(1))  # L_semi counts
    _, metrics = STEP(state, batch, HYPER, objective=OBJECTIVE)

    def sees(image, mask):
        z = Pixelwise().apply(state.segmenter.variables, image, train=True)
        p = jax.nn.softmax(z / HYPER.temperature_adv) * mask[..., None]
        d = Score().apply(state.discriminator.variables, p, train=True)
        return np.asarray(z), np.asarray(d)[..., 0]

    scored = np.asarray(batch["label"]) != IGNORE_LABEL
    visible = np.asarray(batch["unlabeled_visible"])
    _, d_labeled = sees(batch["image"], scored)
    z, d = sees(batch["unlabeled_image"], visible)
    confidence = 1 / (1 + np.exp(-d))
    chosen = visible & (confidence > 0.5)
    log_p = np.asarray(jax.nn.log_softmax(z / HYPER.temperature_seg))
    expected = {
        "loss_adv": np.mean(np.log1p(np.exp(-d_labeled))),
        "loss_adv_unlabeled": np.mean(np.log1p(np.exp(-d))),
        "loss_semi": -np.mean(log_p.max(axis=-1)[chosen]),
        "semi_share": chosen.sum() / visible.sum(),
        "confidence_labeled": np.mean(1 / (1 + np.exp(-d_labeled[scored]))),
        "confidence_unlabeled": np.mean(confidence[visible]),
    }
    assert 0 < expected["semi_share"] < 1, "this test needs a D that is undecided"
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    total = metrics["loss_seg"] + 0.3 * metrics["loss_adv"]
    total += 0.2 * metrics["loss_adv_unlabeled"] + 0.4 * metrics["loss_semi"]
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)
    alone = STEP(state, labeled_part(batch), HYPER, objective=LABELED_ONLY)[1]
    np.testing.assert_allclose(metrics["loss_seg"], alone["loss_seg"], rtol=1e-6)


def test_l_semi_counts_only_after_its_start_and_trains_only_the_segmenter(batch, state):
    step = STEP(state, batch, HYPER, objective=OBJECTIVE)
    without = STEP(state, batch, HYPER._replace(semi_weight=0.0), objective=OBJECTIVE)
    jax.tree.map(np.testing.assert_array_equal, step[0], without[0])
    later = state.replace(step=jnp.int32(1))
    on, _ = STEP(later, batch, HYPER, objective=OBJECTIVE)
    off, _ = STEP(later, batch, HYPER._replace(semi_weight=0.0), objective=OBJECTIVE)
    for a, b in zip(
        jax.tree.leaves(on.segmenter.params),
        jax.tree.leaves(off.segmenter.params),
        strict=True,
    ):
        assert np.any(a != b)
    jax.tree.map(np.testing.assert_array_equal, on.discriminator, off.discriminator)


def test_d_is_trained_on_the_labeled_images_only(batch, state):
    """It gets the gradient of a batch without the others (Hung et al. 2018)."""
    _, metrics = STEP(state, batch, HYPER, objective=OBJECTIVE)
    with_others, _ = STEP(state, batch, HYPER, objective=OBJECTIVE)
    alone, own = STEP(state, labeled_part(batch), HYPER, objective=LABELED_ONLY)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        with_others.discriminator.params,
        alone.discriminator.params,
    )
    for name in ("loss_d", "d_real", "d_fake", "grad_norm_d"):
        np.testing.assert_allclose(metrics[name], own[name], rtol=1e-5)


def test_without_weights_the_segmenter_is_that_of_the_labeled_images(batch, state):
    hyper = HYPER._replace(unlabeled_alpha=0.0, semi_weight=0.0)
    with_others, _ = STEP(state, batch, hyper, objective=OBJECTIVE)
    alone, _ = STEP(state, labeled_part(batch), hyper, objective=LABELED_ONLY)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        with_others.segmenter.params,
        alone.segmenter.params,
    )
