"""The adversarial objectives, compared with their equations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import builders, mesh, optim, steps, train_state
from tempseg_jax.builders.config_fields import check_fields
from tempseg_jax.discriminator_step import update_discriminator
from tempseg_jax.models import (
    BATCH_NORM_DISCRIMINATORS,
    DISCRIMINATORS,
    discriminators,
)
from tempseg_jax.models.discriminators import (
    FullyConvolutionalDiscriminator,
    LayerNormDiscriminator,
    SpectralNormDiscriminator,
)
from tempseg_jax.objective import adversaries, losses
from tempseg_jax.objective.adversaries import ADVERSARIES
from tempseg_jax.precision import COMPUTE_DTYPES
from tempseg_jax.types import IGNORE_LABEL
from tempseg_jax.workdir.checkpoint import Checkpoints
from tests.support import (
    NARROW,
    make_hyper,
    make_objective,
    make_state,
    narrow_discriminators,
)

LOG2 = np.log(2)
CLASSES = 3


@pytest.fixture(scope="module", autouse=True)
def _narrow_discriminators():
    """Give the discriminators of this module's tests few channels, to save time."""
    with pytest.MonkeyPatch.context() as patch:
        narrow_discriminators(patch)
        yield


def test_least_squares_l_d_is_a_quarter_if_d_is_one_half_everywhere():
    half = jnp.full((2, 13, 13, 1), 0.5)
    assert adversaries.least_squares_discriminator(half, half) == 0.25


def test_least_squares_losses_are_zero_if_the_scores_equal_their_targets():
    real, fake = jnp.ones((2, 3)), jnp.zeros((2, 3))
    assert adversaries.least_squares_discriminator(real, fake) == 0
    assert adversaries.least_squares_segmenter(real) == 0
    assert adversaries.least_squares_segmenter(fake) == 0.5
    assert adversaries.least_squares_discriminator(fake, real) == 1


def test_least_squares_losses_are_equations_3_and_4():
    real, fake = np.array([0.5, 2.0, -1.0]), np.array([0.25, 3.0, 0.0])
    loss_d = adversaries.least_squares_discriminator(jnp.array(real), jnp.array(fake))
    expected = 0.5 * (np.mean((real - 1) ** 2) + np.mean(fake**2))
    np.testing.assert_allclose(loss_d, expected, rtol=1e-6)
    loss_adv = adversaries.least_squares_segmenter(jnp.array(fake))
    np.testing.assert_allclose(loss_adv, 0.5 * np.mean((fake - 1) ** 2), rtol=1e-6)


def test_minimax_losses_are_equation_2_with_a_sigmoid():
    real, fake = np.array([0.5, 2.0, -1.0]), np.array([0.25, 3.0, 0.0])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    loss_d = adversaries.minimax_discriminator(jnp.array(real), jnp.array(fake))
    expected = -np.mean(np.log(sigmoid(real))) - np.mean(np.log(1 - sigmoid(fake)))
    np.testing.assert_allclose(loss_d, expected, rtol=1e-6)
    loss_adv = adversaries.non_saturating_segmenter(jnp.array(fake))
    np.testing.assert_allclose(loss_adv, -np.mean(np.log(sigmoid(fake))), rtol=1e-6)


def test_minimax_losses_at_zero_scores_are_multiples_of_log_2():
    zero = jnp.zeros((2, 3))
    loss_d = adversaries.minimax_discriminator(zero, zero)
    np.testing.assert_allclose(loss_d, 2 * LOG2, rtol=1e-6)
    np.testing.assert_allclose(
        adversaries.non_saturating_segmenter(zero), LOG2, rtol=1e-6
    )


def test_minimax_losses_of_large_scores_are_finite_and_have_a_gradient():
    large = jnp.full((2, 3), 500.0)
    np.testing.assert_allclose(
        adversaries.minimax_discriminator(-large, large), 1000, rtol=1e-6
    )
    # Even if D is certain that p is fake, the segmenter has a gradient.
    grad = jax.grad(adversaries.non_saturating_segmenter)(-large)
    np.testing.assert_allclose(grad, -1 / 6, rtol=1e-6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_saturating_loss_is_equation_2_and_its_gradient_vanishes():
    fake = np.array([0.25, 3.0, -2.0])
    loss = adversaries.saturating_segmenter(jnp.array(fake))
    np.testing.assert_allclose(loss, np.mean(np.log(1 - sigmoid(fake))), rtol=1e-6)
    grad = jax.grad(adversaries.saturating_segmenter)(jnp.array(fake))
    np.testing.assert_allclose(grad, -sigmoid(fake) / 3, rtol=1e-5)
    lost = jnp.full(2, -30.0)  # D is certain
    assert np.abs(jax.grad(adversaries.saturating_segmenter)(lost)).max() < 1e-12
    other = jax.grad(adversaries.non_saturating_segmenter)(lost)
    np.testing.assert_allclose(other, -0.5, rtol=1e-6)


def test_hinge_counts_only_scores_within_the_margin():
    real, fake = np.array([0.5, 2.0, -1.0]), np.array([0.25, -3.0, 0.0])
    loss = adversaries.hinge_discriminator(jnp.array(real), jnp.array(fake))
    np.testing.assert_allclose(loss, (0.5 + 0 + 2) / 3 + (1.25 + 0 + 1) / 3, rtol=1e-6)
    assert adversaries.linear_segmenter(jnp.array(fake)) == pytest.approx(2.75 / 3)


def test_the_wasserstein_critic_is_the_negative_distance_of_two_points():
    """In one dimension D(x) = x is the best 1-Lipschitz critic of points 0 and 3."""
    real, fake = jnp.full((2, 4), 3.0), jnp.zeros((2, 4))
    assert adversaries.wasserstein_critic(real, fake) == -3.0


@pytest.mark.parametrize("name", ADVERSARIES)
def test_l_adv_decreases_and_l_d_increases_if_p_looks_real_to_d(name):
    adversary, d_real = ADVERSARIES[name], jnp.array([[0.4]])
    lower, higher = jnp.array([[0.1]]), jnp.array([[0.2]])
    assert adversary.segmenter_loss(higher) < adversary.segmenter_loss(lower)
    one, two = (adversary.discriminator_loss(d_real, x) for x in (lower, higher))
    assert two > one


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_critic_is_its_closed_form(slope):
    """D(x) is linear with a gradient of this norm, for maps of 4 x 5 pixels."""
    direction = np.random.default_rng(0).normal(size=(4, 5, CLASSES))
    direction *= slope / np.sqrt(np.mean(np.sum(direction**2, axis=-1)))
    direction = jnp.array(direction, jnp.float32)
    maps = jnp.ones((2, 4, 5, CLASSES)) / CLASSES
    penalty = adversaries.gradient_penalty(
        lambda x: jnp.sum(x * direction[None], axis=-1, keepdims=True),
        maps,
        maps,
        key=jax.random.key(0),
    )
    np.testing.assert_allclose(penalty, 10 * (slope - 1) ** 2, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("slope", [0.01, 0.1, 1.0])
def test_the_gradient_penalty_is_as_exact_in_float16_as_its_rounding(slope):
    """∇D at a pixel is 4e-7 for a slope of 0.01: float16 has steps of 6e-8 there."""
    maps = jnp.ones((1, 128, 128, CLASSES)) / CLASSES
    direction = jnp.full((1, 128, 128, CLASSES), slope / CLASSES**0.5, jnp.float16)

    def discriminate(x):
        return jnp.mean(x.astype(jnp.float16) * direction, (1, 2))

    penalty = adversaries.gradient_penalty(
        lambda x: CLASSES * discriminate(x), maps, maps, key=jax.random.key(0)
    )
    found = 1 - np.sqrt(penalty / 10)
    np.testing.assert_allclose(found, slope, rtol=5e-3, atol=1e-6)


def test_the_penalty_is_taken_between_x_and_p_and_these_stay_distributions():
    seen = []

    def discriminate(x):
        jax.debug.callback(seen.append, x)
        return x[..., :1]

    real = jax.nn.one_hot(jnp.zeros((6, 2, 2), int), CLASSES)
    fake = jnp.full((6, 2, 2, CLASSES), 1 / CLASSES)
    adversaries.gradient_penalty(discriminate, real, fake, key=jax.random.key(3))
    jax.effects_barrier()
    x = np.asarray(seen[0])
    np.testing.assert_allclose(np.sum(x, -1), 1, rtol=1e-6)
    share = (x[..., 0] - 1 / CLASSES) / (1 - 1 / CLASSES)
    assert np.all((share > 0) & (share < 1))
    assert len(np.unique(share[:, 0, 0])) == 6  # one for each image
    np.testing.assert_allclose(share, share[:, :1, :1] * np.ones((1, 2, 2)), rtol=1e-5)


@pytest.mark.parametrize("slope", [0.0, 0.5, 3.0])
def test_the_gradient_penalty_is_that_of_the_pixels_that_are_not_void(slope):
    """A linear critic with a gradient of this norm there; one image is all void."""
    rng = np.random.default_rng(0)
    visible = rng.random((2, 4, 5, 1)) < 0.4
    visible[1] = False
    direction = rng.normal(size=(1, 4, 5, CLASSES))
    inside = np.sum(np.square(direction * visible[:1])) / (4 * 5)
    direction = jnp.array(direction * slope / np.sqrt(inside), jnp.float32)
    maps = jnp.broadcast_to(visible / CLASSES, (2, 4, 5, CLASSES))
    penalty = adversaries.gradient_penalty(
        lambda x: jnp.sum(x * direction, axis=-1, keepdims=True),
        maps,
        maps,
        key=jax.random.key(0),
    )
    np.testing.assert_allclose(penalty, 10 * (slope - 1) ** 2 / 2, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("network", sorted(set(DISCRIMINATORS) - {"dcgan"}))
def test_the_gradient_penalty_of_an_image_that_is_all_void_has_no_gradient(
    network, precision
):
    """GroupNorm's slope at a map of zeros is 1e9, and infinite in float16."""
    discriminator = DISCRIMINATORS[network](COMPUTE_DTYPES[precision])
    void = jnp.zeros((1, 64, 64, CLASSES))
    variables = discriminator.init(jax.random.key(0), void, train=False)
    leaves, structure = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    random = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]

    def penalty(params):
        return adversaries.gradient_penalty(
            lambda x: discriminator.apply(
                variables | {"params": params}, x, train=False
            ),
            void,
            void,
            key=jax.random.key(2),
        )

    value, gradient = jax.value_and_grad(penalty)(structure.unflatten(random))
    assert value == 0
    assert all(np.all(x == 0) for x in jax.tree.leaves(gradient))


class Pixelwise(nn.Module):
    """A segmenter of 1x1 convolutions."""

    @nn.compact
    def __call__(self, image, *, train):
        x = image.astype(jnp.float32) / 128 - 1
        return nn.Conv(CLASSES, (1, 1))(nn.relu(nn.Conv(8, (1, 1))(x)))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, (2, 32, 32)).astype(np.uint8)
    label[:, :2] = IGNORE_LABEL
    image = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    return {"image": jnp.array(image), "label": jnp.array(label)}


HYPER = make_hyper(
    seed=7,
    learning_rate_g=0.01,
    alpha=0.1,
)
STEP = jax.jit(steps.train_step, static_argnames="objective")


def jittered(params):
    """Return the parameters of D with a last kernel that is not zero."""
    kernel = params["conv5"]["kernel"]
    noise = 0.02 * jax.random.normal(jax.random.key(5), kernel.shape)
    return {**params, "conv5": {**params["conv5"], "kernel": kernel + noise}}


def first_state(objective):
    state = make_state(
        objective.segmenter,
        objective.discriminator,
        size=32,
        num_classes=CLASSES + 3 * objective.conditional,
    )
    make = optim.DISCRIMINATOR_OPTIMIZERS[objective.discriminator_optimizer]
    fresh = make(learning_rate=0.0).init(state.discriminator.params)
    player = state.discriminator.replace(opt_state=fresh)
    return state.replace(discriminator=player)


@pytest.mark.parametrize(
    "network, conditional", [("dcgan_ln", False), ("dcgan_sn", True)]
)
def test_the_double_backward_of_wgan_gp_equals_a_finite_difference(
    network, conditional, batch, monkeypatch
):
    # With LeakyReLU the gradient of D jumps, and a difference over a jump is no slope.
    monkeypatch.setattr(
        discriminators.nn, "leaky_relu", lambda x, _: jax.nn.softplus(x)
    )
    objective = make_objective(
        Pixelwise(),
        DISCRIMINATORS[network](jnp.float32),
        adversary=ADVERSARIES["wgan_gp"],
        conditional=conditional,
    )
    state = first_state(objective)

    @jax.jit
    def gradients(params):
        player = state.discriminator.replace(params=params)
        (_, d), _, metrics = steps.compute_gradients(
            state.replace(discriminator=player),
            batch,
            HYPER,
            key=jax.random.key(1),
            seg_weight=1.0,
            objective=objective,
        )
        return d.grads, metrics

    params = jittered(state.discriminator.params)
    grads, metrics = gradients(params)
    assert metrics["penalty"] > 0.01
    for name in ("conv1", "conv4"):
        direction = grads[name]["kernel"]
        unit = direction / jnp.linalg.norm(direction)

        def loss_at(distance, name=name, unit=unit):
            kernel = params[name]["kernel"] + distance * unit
            moved = {**params, name: {**params[name], "kernel": kernel}}
            return gradients(moved)[1]["loss_d"]

        step = 1e-3
        slope = (loss_at(step) - loss_at(-step)) / (2 * step)
        np.testing.assert_allclose(slope, jnp.linalg.norm(direction), rtol=0.01)


def test_wgan_clips_every_parameter_of_d_after_every_update(batch):
    objective = make_objective(
        Pixelwise(),
        LayerNormDiscriminator(jnp.float32, channels=NARROW),
        adversary=ADVERSARIES["wgan"],
        critic_steps=2,
        discriminator_optimizer="rmsprop",
    )
    state = first_state(objective)
    after, metrics = STEP(state, batch, HYPER, objective=objective)
    for name, layer in after.discriminator.params.items():
        largest = max(np.max(np.abs(x)) for x in jax.tree.leaves(layer))
        bound = np.float32(adversaries.CLIP)
        assert largest <= bound, name
        if name.startswith("ln"):  # its scales start at 1
            assert largest == bound
    np.testing.assert_allclose(
        metrics["loss_d"], metrics["d_fake"] - metrics["d_real"], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("scale", [1, 1e-5])  # D's gradients are small
def test_rmsprop_and_adam_without_momentum_are_their_equations(scale):
    grads = [np.array([0.5, -2.0], np.float32), np.array([1.0, 1.0], np.float32)]
    grads = [scale * grad for grad in grads]
    for name, expected in (("rmsprop", rmsprop), ("adam_no_momentum", adam)):
        make = optim.DISCRIMINATOR_OPTIMIZERS[name]
        objective = make_objective(Pixelwise(), None, discriminator_optimizer=name)
        player = train_state.init_player(
            {"params": {"w": jnp.zeros(2)}}, make(learning_rate=0.0), loss_scale=None
        )
        for grad in grads:
            gradients = optim.Gradients({"w": jnp.array(grad)}, {}, None, None)
            player = update_discriminator(player, gradients, 0.1, objective)
        np.testing.assert_allclose(player.params["w"], expected(grads), rtol=1e-4)


def rmsprop(grads, rate=0.1):
    w, v = np.zeros(2), np.zeros(2)
    for g in grads:
        v = 0.99 * v + 0.01 * g * g
        w = w - rate * g / (np.sqrt(v) + 1e-8)
    return w


def adam(grads, rate=0.1):
    w, v = np.zeros(2), np.zeros(2)
    for t, g in enumerate(grads, start=1):
        v = 0.9 * v + 0.1 * g * g
        w = w - rate * g / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
    return w


def test_a_conditional_d_sees_the_image_as_three_more_channels(batch):
    seen = []

    class Sees(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            seen.append(x)
            return self.param("gain", nn.initializers.ones, ()) * x[..., :1]

    objective = make_objective(Pixelwise(), Sees(), conditional=True)
    state = first_state(objective)
    seen.clear()
    with jax.disable_jit():
        steps.compute_gradients(
            state,
            batch,
            HYPER,
            key=jax.random.key(0),
            seg_weight=1.0,
            objective=objective,
        )
    image = np.asarray(batch["image"]) / 127.5 - 1
    assert len(seen) == 3 and all(x.shape[-1] == CLASSES + 3 for x in seen)
    real = seen[1]
    np.testing.assert_allclose(real[..., CLASSES:], image, atol=1e-6)
    truth = losses.one_hot(batch["label"], num_classes=CLASSES)
    np.testing.assert_array_equal(real[..., :CLASSES], truth)


@pytest.mark.parametrize("name", sorted(set(ADVERSARIES) - {"lsgan", "dcgan"}))
def test_every_adversary_updates_both_players_and_stays_finite(name, batch):
    objective = make_objective(
        Pixelwise(),
        DISCRIMINATORS["dcgan_sn" if name == "hinge" else "fcn"](jnp.float32),
        adversary=ADVERSARIES[name],
        discriminator_optimizer="rmsprop" if name == "hinge" else "adam",
    )
    before = first_state(objective)
    after, metrics = STEP(before, batch, HYPER, objective=objective)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after, metrics)))
    for player in ("segmenter", "discriminator"):
        changed = jax.tree_util.tree_map_with_path(
            lambda path, a, b: np.any(a != b) or "conv5" in jax.tree_util.keystr(path),
            getattr(after, player).params,
            getattr(before, player).params,
        )
        assert all(jax.tree.leaves(changed)), player  # the bias of conv5 cancels


def test_the_vectors_of_spectral_normalization_are_saved_and_resume_bitwise(
    batch, tmp_path
):
    objective = make_objective(
        Pixelwise(),
        SpectralNormDiscriminator(jnp.float32, channels=NARROW),
        adversary=ADVERSARIES["hinge"],
        discriminator_optimizer="rmsprop",
    )
    before = first_state(objective)
    one, _ = STEP(before, batch, HYPER, objective=objective)
    two, _ = STEP(one, batch, HYPER, objective=objective)
    model = {
        "name": "pixelwise",
        "head": "score",
        "output_stride": None,
        "auxiliary": False,
        "num_classes": CLASSES,
        "width": 1.0,
        "preprocessing": {},
        "discriminator": "dcgan_sn",
        "precision": "float32",
    }
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(one, model)
    checkpoints.wait()
    like = mesh.replicated_shapes(jax.eval_shape(lambda: one), mesh.local_mesh())
    restored = checkpoints.restore(like, model, step=1)
    checkpoints.close()
    resumed, _ = STEP(restored, batch, HYPER, objective=objective)
    jax.tree.map(np.testing.assert_array_equal, resumed, two)
    vectors = [x.discriminator.batch_stats["sn1"] for x in (before, one, two)]
    name = "conv1/kernel/u"
    assert np.any(vectors[0][name] != vectors[1][name])
    assert np.any(vectors[1][name] != vectors[2][name])


def test_the_description_of_a_checkpoint_says_that_d_is_conditional(demo_config):
    demo_config.objective.conditional = True
    split = builders.load_split(demo_config, "val")
    objective = builders.build_objective(demo_config, num_classes=8)
    model = builders.describe_model(demo_config, objective, split)
    assert model["discriminator"] == "dcgan, conditional"
    state = builders.abstract_state(demo_config, objective)
    assert state.discriminator.params["conv1"]["kernel"].shape[2] == 8 + 3


def test_spectral_normalization_converges_to_a_largest_singular_value_of_one():
    network = SpectralNormDiscriminator(jnp.float32, channels=NARROW)
    x = jnp.array(np.random.default_rng(0).normal(size=(1, 32, 32, 4)), jnp.float32)
    variables = network.init(jax.random.key(0), x, train=False)
    kernel = variables["params"]["conv2"]["kernel"]
    matrix = np.asarray(kernel).reshape(-1, kernel.shape[-1])
    apply = jax.jit(lambda v: network.apply(v, x, train=True, mutable=["batch_stats"]))
    for _ in range(60):
        _, updated = apply(variables)
        variables = variables | updated
    sigma = variables["batch_stats"]["sn2"]["conv2/kernel/sigma"]
    np.testing.assert_allclose(sigma, np.linalg.svd(matrix)[1][0], rtol=1e-3)


def test_the_confidences_of_the_fully_convolutional_d_have_the_inputs_size():
    network = FullyConvolutionalDiscriminator(jnp.float32, channels=NARROW)
    x = jnp.ones((2, 45, 64, 4))
    variables = network.init(jax.random.key(0), x, train=False)
    assert network.apply(variables, x, train=False).shape == (2, 45, 64, 1)
    assert "batch_stats" not in variables


@pytest.mark.parametrize("network", ["dcgan_ln", "dcgan_sn", "fcn"])
def test_without_batch_norm_a_score_does_not_depend_on_the_other_images(network):
    d = DISCRIMINATORS[network](jnp.float32)
    x = jnp.array(np.random.default_rng(0).normal(size=(2, 32, 32, 4)), jnp.float32)
    variables = d.init(jax.random.key(0), x, train=False)
    variables = variables | {"params": jittered(variables["params"])}
    both, one = (d.apply(variables, x[:n], train=False) for n in (2, 1))
    assert np.all(one != 0)
    np.testing.assert_allclose(both[:1], one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_the_discriminators_with_batch_norm_are_those_with_its_statistics(name):
    maps = jnp.zeros((1, 64, 64, CLASSES))
    discriminator = DISCRIMINATORS[name](jnp.float32)
    shapes = jax.eval_shape(
        lambda: discriminator.init(jax.random.key(0), maps, train=False)
    )
    names = {str(path[-1].key) for path, _ in jax.tree.leaves_with_path(shapes)}
    assert ("var" in names) == (name in BATCH_NORM_DISCRIMINATORS)


def test_a_penalty_on_a_discriminator_with_batch_norm_is_refused(demo_config):
    demo_config.objective.adversary = "wgan_gp"
    with pytest.raises(ValueError, match="model.discriminator: 'dcgan' has BatchNorm"):
        check_fields(demo_config)
