"""L_seg with class weights and OHEM, compared with loops over pixels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import builders
from tempseg_jax.builders.config_fields import check_fields
from tempseg_jax.objective import losses
from tempseg_jax.objective.balanced_loss import balanced_cross_entropy
from tempseg_jax.types import IGNORE_LABEL

CLASSES = 3


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (2, 5, 7)).astype(np.uint8)
    labels[:, 0] = IGNORE_LABEL
    labels[1, :4] = IGNORE_LABEL  # the images have different numbers of pixels
    logits = rng.normal(size=(2, 5, 7, CLASSES)).astype(np.float32)
    return jnp.array(logits), jnp.array(labels)


def pixels(maps, temperature, smoothing):
    """Return (loss, class) of each scored pixel, by image."""
    images = []
    for logits, labels in zip(*map(np.asarray, maps), strict=True):
        rows = []
        for z, label in zip(logits.reshape(-1, CLASSES), labels.ravel(), strict=True):
            if label == IGNORE_LABEL:
                continue
            p = np.exp(z / temperature) / np.exp(z / temperature).sum()
            target = (1 - smoothing) * np.eye(CLASSES)[label] + smoothing / CLASSES
            rows.append((-np.sum(target * np.log(p)), label))
        images.append(rows)
    return images


def balanced(maps, **changes):
    options = {
        "temperature": 0.5,
        "smoothing": 0.0,
        "class_weights": 1.0,
        "hard_pixels": 1.0,
    }
    return balanced_cross_entropy(*maps, **options | changes)


def test_without_weights_it_is_the_cross_entropy(maps):
    plain = losses.cross_entropy(*maps, temperature=0.5)
    np.testing.assert_allclose(balanced(maps), plain, rtol=1e-6)
    smoothed = losses.smoothed_cross_entropy(*maps, temperature=0.5, smoothing=0.2)
    np.testing.assert_allclose(balanced(maps, smoothing=0.2), smoothed, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_are_a_weighted_mean_over_pixels(maps, smoothing):
    weights = np.array([0.5, 2.0, 0.0], np.float32)
    rows = sum(pixels(maps, 0.5, smoothing), [])
    total = sum(weights[c] for _, c in rows)
    expected = sum(weights[c] * nats for nats, c in rows) / total
    loss = balanced(maps, class_weights=jnp.array(weights), smoothing=smoothing)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    # Only ratios of the weights count.
    same = balanced(maps, class_weights=jnp.array(7 * weights), smoothing=smoothing)
    np.testing.assert_allclose(same, loss, rtol=1e-6)


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.99])
def test_ohem_is_the_mean_over_the_hardest_pixels_of_each_image(maps, fraction):
    weights = np.array([0.5, 2.0, 1.0])
    chosen = []
    for rows in pixels(maps, 0.5, 0.0):
        count = int(np.ceil(fraction * len(rows)))
        chosen += sorted(rows, reverse=True)[:count]
    expected = sum(weights[c] * nats for nats, c in chosen)
    expected /= sum(weights[c] for _, c in chosen)
    loss = balanced(
        maps, class_weights=jnp.array(weights, jnp.float32), hard_pixels=fraction
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_easy_and_void_pixels_have_no_gradient_with_ohem(maps):
    grad = jax.grad(lambda z: balanced((z, maps[1]), hard_pixels=0.3))(maps[0])
    moved = np.any(np.asarray(grad) != 0, axis=-1)
    counts = [int(np.ceil(0.3 * len(rows))) for rows in pixels(maps, 0.5, 0.0)]
    assert moved.sum(axis=(1, 2)).tolist() == counts
    assert not moved[np.asarray(maps[1]) == IGNORE_LABEL].any()


def test_a_batch_of_void_pixels_has_zero_loss_and_gradient(maps):
    void = jnp.full_like(maps[1], IGNORE_LABEL)
    loss, grad = jax.value_and_grad(lambda z: balanced((z, void), hard_pixels=0.5))(
        maps[0]
    )
    assert loss == 0
    np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize(
    "field, value", [("class_weights", "inverse"), ("hard_pixels", 0.5)]
)
def test_they_are_refused_with_gradient_accumulation(demo_config, field, value):
    demo_config.accumulate = 2
    demo_config.objective[field] = value
    with pytest.raises(ValueError, match=f"objective.{field}: .* accumulate to 1"):
        check_fields(demo_config)


def test_they_are_off_by_default(demo_config):
    objective = builders.build_objective(demo_config, num_classes=8)
    plain = dataclasses.replace(objective, class_weights=False, hard_pixels=1.0)
    assert objective == plain
