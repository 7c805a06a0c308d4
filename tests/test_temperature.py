"""T_G on L_seg is equivalent to a learning rate (docs/results.md)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tempseg_jax.objective import losses
from tests.support import make_segmenter

CLASSES, TEMPERATURE = 5, 0.5


@functools.cache
def network(name):
    """Return initial parameters, optimizer state, training step and forward pass."""
    segmenter = make_segmenter(name, num_classes=CLASSES)
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (4, 64, 64, 3), np.uint8))
    label = jnp.asarray(rng.integers(0, CLASSES, (4, 64, 64), np.uint8))
    variables = jax.jit(functools.partial(segmenter.init, train=False))(
        jax.random.key(0), image
    )
    params, stats = variables["params"], variables.get("batch_stats", {})

    def optimizer(score_rate):
        rate = optax.masked(optax.scale(score_rate), is_score)
        return optax.chain(optax.sgd(0.05, momentum=0.9), rate)

    def logits_of(params):
        logits, _ = segmenter.apply(
            {"params": params, "batch_stats": stats},
            image,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        return logits

    @jax.jit
    def step(params, state, temperature, score_rate):
        def loss(params):
            return losses.cross_entropy(
                logits_of(params), label, temperature=temperature
            )

        updates, state = optimizer(score_rate).update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    return params, optimizer(1.0).init(params), step, jax.jit(logits_of)


def train(name, *, temperature, score_rate):
    """Return the logits divided by T after four steps of SGD with momentum."""
    params, state, step, logits_of = network(name)
    for _ in range(4):
        params, state = step(params, state, temperature, score_rate)
    return np.asarray(logits_of(params)) / temperature


def is_score(params):
    """Mark the score layers, whose learning rate is multiplied."""
    return {name: name.startswith("score") for name in params}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn8s", "resnet50"])
def test_it_multiplies_the_learning_rate_of_the_score_layers_by_one_over_t_squared(
    name,
):
    with_temperature = train(name, temperature=TEMPERATURE, score_rate=1.0)
    with_rate = train(name, temperature=1.0, score_rate=1 / TEMPERATURE**2)
    with_neither = train(name, temperature=1.0, score_rate=1.0)
    scale = np.abs(with_rate).max()
    np.testing.assert_allclose(with_temperature, with_rate, atol=1e-4 * scale)
    assert np.abs(with_neither - with_rate).max() > 0.1 * scale
