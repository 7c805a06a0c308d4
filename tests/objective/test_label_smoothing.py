"""Label smoothing in L_seg, and the real map with the values of p."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.objective import losses
from tempseg_jax.types import IGNORE_LABEL

LOGITS = jax.random.normal(jax.random.key(0), (2, 3, 4, 5)) * 3
LABELS = (
    jax.random.randint(jax.random.key(1), (2, 3, 4), 0, 5).at[0, 0].set(IGNORE_LABEL)
)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_target_is_partly_uniform(temperature):
    log_p = np.log(jax.nn.softmax(LOGITS / temperature))
    target = 0.8 * np.eye(6)[np.minimum(LABELS, 5)][..., :5] + 0.2 / 5
    nats = -(target * log_p).sum(-1)[np.asarray(LABELS) != IGNORE_LABEL]
    loss = losses.smoothed_cross_entropy(
        LOGITS, LABELS, temperature=temperature, smoothing=0.2
    )
    np.testing.assert_allclose(loss, nats.mean(), rtol=1e-5)


def test_without_smoothing_it_is_the_cross_entropy():
    np.testing.assert_array_equal(
        losses.smoothed_cross_entropy(LOGITS, LABELS, temperature=0.5, smoothing=0.0),
        losses.cross_entropy(LOGITS, LABELS, temperature=0.5),
    )


def test_the_minimum_is_at_the_smoothed_probabilities_and_not_at_infinity():
    p = jnp.array([0.84, 0.04, 0.04, 0.04, 0.04])  # 1 - 0.2 + 0.2 / 5, and 0.2 / 5

    def loss(logits):
        return losses.smoothed_cross_entropy(
            logits[None], jnp.array([0]), temperature=1.0, smoothing=0.2
        )

    np.testing.assert_allclose(jax.grad(loss)(jnp.log(p)), np.zeros(5), atol=1e-6)


def test_void_has_no_gradient_and_a_void_batch_no_loss():
    def loss(logits, labels):
        return losses.smoothed_cross_entropy(
            logits, labels, temperature=1.0, smoothing=0.1
        )

    grad = jax.grad(loss)(LOGITS, LABELS)
    np.testing.assert_array_equal(grad[0, 0], 0)
    assert np.abs(grad[0, 1]).min() > 0
    assert loss(LOGITS, jnp.full_like(LABELS, IGNORE_LABEL)) == 0


def test_the_matched_real_map_has_the_values_of_p_and_the_classes_of_the_truth():
    p = jax.nn.softmax(LOGITS)
    real = np.asarray(losses.one_hot_with_values_of(p, LABELS))
    scored = np.asarray(LABELS) != IGNORE_LABEL
    np.testing.assert_array_equal(real[~scored], 0)
    np.testing.assert_array_equal(real.argmax(-1)[scored], LABELS[scored])
    np.testing.assert_allclose(
        np.sort(real[scored]), np.sort(np.asarray(p)[scored]), atol=1e-6
    )
    right = scored & (np.asarray(p).argmax(-1) == LABELS)
    assert right.any() and (scored & ~right).any()
    np.testing.assert_array_equal(real[right], p[right])
    wrong = real[scored & ~right] != np.asarray(p)[scored & ~right]
    np.testing.assert_array_equal(wrong.sum(-1), 2)  # two values change places


def test_the_matched_real_map_of_a_sharp_right_prediction_is_one_hot():
    labels = jnp.array([2, 0])
    p = jax.nn.softmax(100 * losses.one_hot(labels, num_classes=3))
    np.testing.assert_allclose(
        losses.one_hot_with_values_of(p, labels),
        losses.one_hot(labels, num_classes=3),
        atol=1e-6,
    )
