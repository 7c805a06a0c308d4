import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tempseg_jax import optim, train_state


def test_sgd_with_momentum_follows_its_recursion():
    optimizer = optim.sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.0)
    params = {"bias": jnp.array([1.0])}
    state = optimizer.init(params)
    w, velocity = 1.0, 0.0
    for gradient in (2.0, -1.0, 0.5):
        grads = {"bias": jnp.array([gradient])}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        velocity = gradient + 0.9 * velocity
        w -= 0.1 * velocity
        np.testing.assert_allclose(params["bias"], [w], rtol=1e-6)


def test_weight_decay_is_the_gradient_of_half_lambda_w_squared():
    # As in equation 1, it is part of the gradient, to which momentum applies.
    def optimized(weight_decay, gradient_of):
        optimizer = optim.sgd(
            learning_rate=0.1, momentum=0.9, weight_decay=weight_decay
        )
        params = {"kernel": jnp.full((1, 1, 1, 1), 2.0)}
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update(gradient_of(params), state, params)
            params = optax.apply_updates(params, updates)
        return params["kernel"]

    def loss(params):
        return jnp.sum(jnp.sin(params["kernel"]))

    def penalized(params):
        return loss(params) + 0.3 / 2 * jnp.sum(params["kernel"] ** 2)

    np.testing.assert_allclose(
        optimized(0.3, jax.grad(loss)), optimized(0.0, jax.grad(penalized)), rtol=1e-6
    )


def test_weight_decay_acts_on_convolution_kernels_only():
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 2, 2)), "bias": jnp.ones(2)},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
    }
    optimizer = optim.sgd(learning_rate=1.0, momentum=0.0, weight_decay=0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["conv"].pop("kernel"), -0.5)
    assert all(not np.any(x) for x in jax.tree.leaves(updates))


def test_adam_follows_the_published_recursion_with_beta_1_of_dcgan():
    optimizer = optim.adam(learning_rate=0.01)
    params = jnp.array([1.0])
    state = optimizer.init(params)
    w, m, v = 1.0, 0.0, 0.0
    for t, gradient in enumerate((2.0, -1.0, 0.5), start=1):
        updates, state = optimizer.update(jnp.array([gradient]), state, params)
        params = optax.apply_updates(params, updates)
        m = 0.5 * m + 0.5 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        step = (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w -= 0.01 * step
        np.testing.assert_allclose(params, [w], rtol=1e-5)


def test_the_shapes_of_optimizer_states_do_not_depend_on_the_numbers():
    params = {"kernel": jnp.ones((1, 1, 1, 1)), "bias": jnp.ones(1)}

    def shapes(optimizer):
        return jax.tree.map(jnp.shape, optimizer.init(params))

    sgd = dict(learning_rate=0.0, momentum=0.0, weight_decay=0.0)
    other = dict(learning_rate=1.0, momentum=0.9, weight_decay=5e-4)
    assert shapes(optim.sgd(**sgd)) == shapes(optim.sgd(**other))
    assert shapes(optim.adam(learning_rate=0.0)) == shapes(
        optim.adam(learning_rate=1e-7)
    )


def test_l1_is_a_proximal_step_of_the_kernels_after_sgd():
    kernel = jnp.array([0.5, -0.5, 0.02, -0.02]).reshape(1, 1, 2, 2)
    params = {"score": {"kernel": kernel, "bias": jnp.array([0.01])}}
    sgd = optim.sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0)
    player = train_state.init_player({"params": params}, sgd, loss_scale=None)
    gradients = optim.Gradients(jax.tree.map(jnp.ones_like, params), {}, None, None)
    updated = optim.update_segmenter(
        player,
        gradients,
        learning_rate=0.1,
        head_rate=2.0,
        momentum=0.9,
        weight_decay=0.0,
        l1=0.05,
    )
    step = np.asarray(kernel) - 0.1 * 2.0
    expected = np.sign(step) * np.maximum(np.abs(step) - 0.1 * 0.05 / (1 - 0.9), 0)
    np.testing.assert_allclose(
        updated.params["score"]["kernel"], expected, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(updated.params["score"]["bias"], 0.01 - 0.2, rtol=1e-5)
    # It minimizes (w - x)² / 2 + bound |w|.
    grid = np.linspace(-2, 2, 40_001)
    for x in (-1.3, -0.1, 0.0, 0.24, 0.26):
        best = grid[np.argmin((grid - x) ** 2 / 2 + 0.25 * np.abs(grid))]
        np.testing.assert_allclose(
            optim.soft_threshold(jnp.float32(x), 0.25), best, atol=1e-4
        )


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_l1_has_the_minimum_of_the_penalized_loss_with_any_momentum(momentum):
    # (w - 1)² / 2 + |w| / 2 is smallest at w = 1/2.
    params = {"conv": {"kernel": jnp.zeros((1, 1, 1, 1))}}
    sgd = optim.sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0)
    player = train_state.init_player({"params": params}, sgd, loss_scale=None)
    for _ in range(400):
        player = optim.update_segmenter(
            player,
            optim.Gradients(
                jax.tree.map(lambda w: w - 1, player.params), {}, None, None
            ),
            learning_rate=0.05,
            head_rate=1.0,
            momentum=momentum,
            weight_decay=0.0,
            l1=0.5,
        )
    np.testing.assert_allclose(player.params["conv"]["kernel"], 0.5, atol=1e-4)
