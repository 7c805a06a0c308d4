import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tempseg_jax.objective import losses
from tempseg_jax.types import IGNORE_LABEL


@pytest.fixture(scope="module")
def maps():
    """Logits and labels of two 4x4 images, one with void pixels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (2, 4, 4)).astype(np.uint8)
    labels[0, :2] = IGNORE_LABEL
    return jnp.array(rng.normal(size=(2, 4, 4, 3)), jnp.float32), jnp.array(labels)


def test_cross_entropy_of_uniform_logits_is_log_k_at_every_temperature():
    logits, labels = jnp.zeros((2, 3, 21)), jnp.full((2, 3), 20, jnp.uint8)
    for temperature in (0.5, 1.0, 2.0):
        loss = losses.cross_entropy(logits, labels, temperature=temperature)
        np.testing.assert_allclose(loss, np.log(21), rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_cross_entropy_is_the_log_of_one_plus_the_odds(temperature):
    # softmax([z, 0] / T)[0] = 1 / (1 + exp(-z / T))
    logits = jnp.array([[3.0, 0.0]])
    loss = losses.cross_entropy(logits, jnp.array([0]), temperature=temperature)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-3 / temperature)), atol=1e-6)


def test_cross_entropy_is_the_mean_over_scored_pixels_only(maps):
    logits, labels = maps
    nats = []
    for z, label in zip(np.reshape(logits, (-1, 3)), np.ravel(labels), strict=True):
        if label != IGNORE_LABEL:
            p = np.exp(z / 0.5) / np.exp(z / 0.5).sum()
            nats.append(-np.log(p[label]))
    loss = losses.cross_entropy(logits, labels, temperature=0.5)
    assert len(nats) == 24
    np.testing.assert_allclose(loss, np.mean(nats), rtol=1e-5)


def test_temperature_scales_the_gradient_by_its_inverse_at_zero_logits():
    labels = jnp.array([0, 1])
    grad = jax.grad(losses.cross_entropy)
    at_one = grad(jnp.zeros((2, 3)), labels, temperature=1.0)
    at_half = grad(jnp.zeros((2, 3)), labels, temperature=0.5)
    np.testing.assert_allclose(at_half, 2 * at_one, rtol=1e-6)


def test_ignored_pixels_have_no_gradient(maps):
    logits, labels = maps
    grad = jax.grad(losses.cross_entropy)(logits, labels, temperature=0.5)
    void = np.asarray(labels) == IGNORE_LABEL
    np.testing.assert_array_equal(grad[void], 0)
    assert np.all(np.abs(grad[~void]).max(axis=-1) > 0)


def test_logits_of_void_pixels_do_not_change_the_cross_entropy(maps):
    logits, labels = maps
    void = (np.asarray(labels) == IGNORE_LABEL)[..., None]
    other = jnp.where(void, 1e4, logits)
    kwargs = dict(temperature=0.5)
    assert losses.cross_entropy(other, labels, **kwargs) == losses.cross_entropy(
        logits, labels, **kwargs
    )


def test_a_batch_of_only_void_pixels_has_zero_loss_and_gradient():
    logits = jnp.ones((2, 2, 3))
    labels = jnp.full((2, 2), IGNORE_LABEL, jnp.uint8)
    loss, grad = jax.value_and_grad(losses.cross_entropy)(
        logits, labels, temperature=0.5
    )
    assert loss == 0
    np.testing.assert_array_equal(grad, 0)


def test_cross_entropy_stays_finite_where_probabilities_underflow():
    logits = jnp.array([[1e4, -1e4]])
    loss, grad = jax.value_and_grad(losses.cross_entropy)(
        logits, jnp.array([1]), temperature=0.5
    )
    np.testing.assert_allclose(loss, 4e4, rtol=1e-6)
    assert np.isfinite(grad).all()


def plain_cross_entropy(logits, labels, temperature):
    """Equation 1 as it is written, differentiated by JAX."""
    scored = labels != IGNORE_LABEL
    log_p = jax.nn.log_softmax(logits / temperature)
    own = jnp.take_along_axis(log_p, jnp.where(scored, labels, 0)[..., None], axis=-1)
    return -jnp.sum(own[..., 0], where=scored) / jnp.sum(scored)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_cross_entropy_and_its_gradients_are_those_of_the_plain_formula(
    maps, temperature
):
    logits, labels = maps
    labels = jnp.asarray(labels, jnp.int32)
    t = jnp.float32(temperature)
    ours = jax.value_and_grad(
        lambda z, t: losses.cross_entropy(z, labels, temperature=t), argnums=(0, 1)
    )(logits, t)
    plain = jax.value_and_grad(
        lambda z, t: plain_cross_entropy(z, labels, t), argnums=(0, 1)
    )(logits, t)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), ours, plain
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_probabilities_and_their_gradients_are_those_of_the_softmax(maps, temperature):
    logits, labels = maps
    mask = jnp.asarray(labels != IGNORE_LABEL)
    weights = jnp.array(np.random.default_rng(1).normal(size=logits.shape), jnp.float32)

    def ours(z, t):
        p = losses.probabilities(z, temperature=t, mask=mask)
        return jnp.sum(p * weights)

    def plain(z, t):
        p = jnp.exp(z / t) / jnp.sum(jnp.exp(z / t), axis=-1, keepdims=True)
        return jnp.sum(jnp.where(mask[..., None], p, 0) * weights)

    t = jnp.float32(temperature)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.value_and_grad(ours, argnums=(0, 1))(logits, t),
        jax.value_and_grad(plain, argnums=(0, 1))(logits, t),
    )


def test_no_array_of_the_logits_size_is_kept_for_the_gradient():
    """The logits are kept by the network's own backward pass."""
    logits, labels = jnp.ones((2, 8, 8, 5)), jnp.zeros((2, 8, 8), jnp.int32)

    def both(z):
        p = losses.probabilities(z, temperature=0.5, mask=None)
        return losses.cross_entropy(z, labels, temperature=0.5), p

    residuals = jax.tree.leaves(jax.vjp(both, logits)[1])
    large = [x for x in residuals if x.shape == logits.shape]
    assert large and all(np.array_equal(x, logits) for x in large)


def test_labels_of_another_shape_are_refused():
    with pytest.raises(TypeCheckError):
        losses.cross_entropy(
            jnp.zeros((2, 4, 3)), jnp.zeros((2, 5), jnp.uint8), temperature=1.0
        )


def test_temperature_sharpens_and_flattens_probabilities():
    logits = jnp.array([[2.0, 1.0, 0.0]])

    def p(temperature):
        return losses.probabilities(logits, temperature=temperature, mask=None)[0]

    e = np.exp([2.0, 1.0, 0.0])
    np.testing.assert_allclose(p(1.0), e / e.sum(), rtol=1e-5)
    np.testing.assert_allclose(p(0.5), e**2 / (e**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(p(1e-3), [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(p(1e6), [1 / 3] * 3, atol=1e-6)


def test_masked_probabilities_are_zero_at_void_pixels(maps):
    logits, labels = maps
    void = np.asarray(labels) == IGNORE_LABEL
    mask = losses.visible_to_discriminator({"label": labels})
    np.testing.assert_array_equal(mask, ~void)
    masked = losses.probabilities(logits, temperature=1.0, mask=mask)
    np.testing.assert_array_equal(masked[void], 0)
    np.testing.assert_allclose(masked[~void].sum(-1), 1, rtol=1e-6)
    unmasked = losses.probabilities(logits, temperature=1.0, mask=None)
    np.testing.assert_allclose(unmasked.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(unmasked[~void], masked[~void])


def test_the_one_hot_vector_of_void_is_zero():
    labels = jnp.array([0, 20, IGNORE_LABEL], jnp.uint8)
    x = np.asarray(losses.one_hot(labels, num_classes=21))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[0], np.eye(21)[0])
    np.testing.assert_array_equal(x[1], np.eye(21)[20])
    np.testing.assert_array_equal(x[2], 0)
