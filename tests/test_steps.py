"""The training step, compared with a slow reference on tiny networks."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tempseg_jax import steps
from tempseg_jax.jitted_step import COMPILER_OPTIONS
from tempseg_jax.models.segmenter import predict
from tempseg_jax.objective import adversaries
from tempseg_jax.types import IGNORE_LABEL
from tests.support import make_hyper, make_objective, make_state

CLASSES = 3
SCHEDULE = np.array([0.5, 1.0, 0.75, 0.25] + 196 * [1.0], np.float32)
TRACES = []
"""One entry for each call of a network in Python; a compiled step adds none."""


class Segmenter(nn.Module):
    """Two convolutions with BatchNorm and dropout."""

    num_classes: int = CLASSES
    gain: float = 1.0

    @nn.compact
    def __call__(self, image, *, train):
        TRACES.append("segmenter")
        x = image.astype(jnp.float32) / 255
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return self.gain * nn.Conv(self.num_classes, (1, 1))(x)


class Pixelwise(nn.Module):
    """A segmenter of 1x1 convolutions: each output depends on a single pixel."""

    @nn.compact
    def __call__(self, image, *, train):
        x = image.astype(jnp.float32) / 128 - 1
        return nn.Conv(CLASSES, (1, 1))(nn.relu(nn.Conv(16, (1, 1))(x)))


class Discriminator(nn.Module):
    """A discriminator with BatchNorm, whose running statistics show each update."""

    @nn.compact
    def __call__(self, probabilities, *, train):
        TRACES.append("discriminator")
        # No bias before BatchNorm: its gradient is only rounding errors, which Adam
        # would scale up to large steps.
        x = nn.Conv(4, (4, 4), strides=2, use_bias=False)(probabilities)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Conv(1, (4, 4), strides=2)(nn.leaky_relu(x, 0.2))


SEGMENTER = Segmenter()
HYPER = make_hyper(
    seed=7,
    learning_rate_schedule=SCHEDULE,
    weight_decay=0.02,
    temperature_seg=0.5,
    temperature_adv=0.7,
    temperature_d=2.0,
)
STEP = jax.jit(steps.train_step, static_argnames="objective")
ADVERSARIAL = make_objective(SEGMENTER, Discriminator())
SUPERVISED = make_objective(SEGMENTER, None)
PIXELWISE = make_objective(Pixelwise(), Discriminator())


def make_batch():
    """Four random images, a quarter of their labels void."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, (4, 8, 8)).astype(np.uint8)
    label[:, :2] = IGNORE_LABEL
    image = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    return {"image": jnp.array(image), "label": jnp.array(label)}


@pytest.fixture(scope="module")
def batch():
    return make_batch()


@functools.cache
def initial_state(*, adversarial=True, segmenter=SEGMENTER, scale=None):
    return make_state(
        segmenter,
        Discriminator() if adversarial else None,
        size=8,
        num_classes=CLASSES,
        loss_scale=scale,
    )


def assert_close(actual, expected, *, atol=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol),
        actual,
        expected,
    )


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def assert_all_changed(after, before):
    """Check that every array of a tree has changed."""
    jax.tree.map(lambda a, b: np.testing.assert_(np.any(a != b)), after, before)


def forward(variables, batch, step):
    """Run the segmenter with the dropout of step number `step`."""
    dropout = jax.random.fold_in(jax.random.key(HYPER.seed), step)
    return Segmenter().apply(
        variables,
        batch["image"],
        train=True,
        rngs={"dropout": dropout},
        mutable=["batch_stats"],
    )


def discriminate(variables, x):
    """Run the discriminator in training mode."""
    return Discriminator().apply(variables, x, train=True, mutable=["batch_stats"])


def real_and_fake(logits, labels, temperature):
    """Return the inputs of D, written out: one-hot and softmax, zero at void pixels."""
    scored = (labels != IGNORE_LABEL)[..., None]
    exp = jnp.exp(logits / temperature)
    fake = scored * exp / exp.sum(-1, keepdims=True)
    real = jnp.stack([labels == k for k in range(CLASSES)], -1).astype(jnp.float32)
    return real, fake


@functools.partial(jax.jit, static_argnames="gan")
def slow_gradients(g, d, batch, step, *, gan):
    """Return both players' gradients, each from its own forward passes.

    `g` and `d` are the variables before the step. Also returns the losses and the
    updated running statistics.
    """
    labels = batch["label"].astype(jnp.int32)
    scored = labels != IGNORE_LABEL

    def loss_g(params):
        logits, _ = forward({**g, "params": params}, batch, step)
        log_p = jax.nn.log_softmax(logits / HYPER.temperature_seg)
        chosen = sum(jnp.where(labels == k, log_p[..., k], 0.0) for k in range(CLASSES))
        loss_seg = -chosen.sum() / scored.sum()
        _, fake = real_and_fake(logits, labels, HYPER.temperature_adv)
        d_fake, _ = discriminate(d, fake)
        if gan == "lsgan":
            loss_adv = 0.5 * jnp.mean((d_fake - 1) ** 2)
        else:
            loss_adv = -jnp.mean(jnp.log(jax.nn.sigmoid(d_fake)))
        return loss_seg + HYPER.alpha * loss_adv, (loss_seg, loss_adv)

    def loss_d(params):
        logits, _ = forward(g, batch, step)
        real, fake = real_and_fake(logits, labels, HYPER.temperature_d)
        d_real, _ = discriminate({**d, "params": params}, real)
        d_fake, _ = discriminate({**d, "params": params}, fake)
        if gan == "lsgan":
            return 0.5 * (jnp.mean((d_real - 1) ** 2) + jnp.mean(d_fake**2))
        log_real = jnp.log(jax.nn.sigmoid(d_real))
        log_fake = jnp.log(1 - jax.nn.sigmoid(d_fake))
        return -jnp.mean(log_real) - jnp.mean(log_fake)

    (_, (loss_seg, loss_adv)), grads_g = jax.value_and_grad(loss_g, has_aux=True)(
        g["params"]
    )
    value_d, grads_d = jax.value_and_grad(loss_d)(d["params"])
    logits, updated = forward(g, batch, step)
    real, fake = real_and_fake(logits, labels, HYPER.temperature_d)
    _, after_real = discriminate(d, real)
    _, after_fake = discriminate({**d, **after_real}, fake)
    values = {"loss_seg": loss_seg, "loss_adv": loss_adv, "loss_d": value_d}
    stats = (updated["batch_stats"], after_fake["batch_stats"])
    return grads_g, grads_d, values, stats


class SlowReference:
    """Both optimizers written out, with their states."""

    def __init__(self, state):
        self.g, self.d = state.segmenter.variables, state.discriminator.variables
        self.velocity = jax.tree.map(jnp.zeros_like, self.g["params"])
        self.m = self.v = jax.tree.map(jnp.zeros_like, self.d["params"])
        self.step = 0

    def update(self, batch, *, gan):
        """Update both players, and return the losses."""
        grads_g, grads_d, values, (stats_g, stats_d) = slow_gradients(
            self.g, self.d, batch, self.step, gan=gan
        )
        lr_g, lr_d = (
            SCHEDULE[self.step] * rate
            for rate in (HYPER.learning_rate_g, HYPER.learning_rate_d)
        )
        self.step += 1
        t, tree_map = self.step, jax.tree.map

        def decayed(w, grad):
            return grad + HYPER.weight_decay * w if w.ndim == 4 else grad

        def adam_step(m, v):
            return (m / (1 - 0.5**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)

        gradient = tree_map(decayed, self.g["params"], grads_g)
        self.velocity = tree_map(lambda g, s: g + 0.9 * s, gradient, self.velocity)
        self.m = tree_map(lambda g, m: 0.5 * m + 0.5 * g, grads_d, self.m)
        self.v = tree_map(lambda g, v: 0.999 * v + 0.001 * g * g, grads_d, self.v)
        params_g = tree_map(lambda w, s: w - lr_g * s, self.g["params"], self.velocity)
        params_d = tree_map(
            lambda w, m, v: w - lr_d * adam_step(m, v),
            self.d["params"],
            self.m,
            self.v,
        )
        self.g = {"params": params_g, "batch_stats": stats_g}
        self.d = {"params": params_d, "batch_stats": stats_d}
        return values


@pytest.mark.parametrize("gan", ["lsgan", "dcgan"])
def test_one_step_equals_separate_forward_passes_and_gradients(batch, gan):
    reference, state = SlowReference(initial_state()), initial_state()
    adversary = adversaries.ADVERSARIES[gan]
    objective = make_objective(SEGMENTER, Discriminator(), adversary=adversary)
    for _ in range(3):
        expected = reference.update(batch, gan=gan)
        before = state
        state, metrics = STEP(state, batch, HYPER, objective=objective)
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
        assert_close(state.segmenter.variables, reference.g)
        assert_close(state.discriminator.variables, reference.d)
        assert_all_changed(state.segmenter.variables, before.segmenter.variables)
        assert_all_changed(
            state.discriminator.batch_stats, before.discriminator.batch_stats
        )
    assert int(state.step) == 3


def test_the_metrics_agree_with_the_reference(batch):
    _, m = STEP(initial_state(), batch, HYPER, objective=ADVERSARIAL)
    np.testing.assert_allclose(m["loss"], m["loss_seg"] + 0.3 * m["loss_adv"])
    np.testing.assert_allclose(m["learning_rate"], 0.5 * 0.1)
    state = initial_state()
    logits, _ = forward(state.segmenter.variables, batch, 0)
    real, fake = real_and_fake(logits, batch["label"], HYPER.temperature_d)
    for name, x in (("d_real", real), ("d_fake", fake)):
        scores, _ = discriminate(state.discriminator.variables, x)
        np.testing.assert_allclose(m[name], jnp.mean(scores), rtol=1e-4, atol=1e-6)
    grads_g, grads_d, _, _ = slow_gradients(
        state.segmenter.variables,
        state.discriminator.variables,
        batch,
        0,
        gan="lsgan",
    )
    np.testing.assert_allclose(m["grad_norm_g"], optax.tree.norm(grads_g), rtol=1e-5)
    np.testing.assert_allclose(m["grad_norm_d"], optax.tree.norm(grads_d), rtol=1e-5)


def test_without_a_discriminator_the_step_is_supervised_training(batch):
    state = initial_state(adversarial=False)
    hyper = HYPER._replace(alpha=0.0)
    TRACES.clear()
    after, metrics = STEP(state, batch, hyper, objective=SUPERVISED)
    assert after.discriminator is None
    assert "discriminator" not in TRACES
    assert not {"loss_adv", "loss_d", "d_real", "d_fake"} & metrics.keys()

    def loss(params):
        variables = {**state.segmenter.variables, "params": params}
        logits, updated = forward(variables, batch, 0)
        log_p = jax.nn.log_softmax(logits / hyper.temperature_seg)
        scored = batch["label"] != IGNORE_LABEL
        truth = jnp.where(scored, batch["label"], 0).astype(jnp.int32)
        nats = -jnp.take_along_axis(log_p, truth[..., None], -1)[..., 0]
        return jnp.sum(nats * scored) / jnp.sum(scored), updated["batch_stats"]

    (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(
        state.segmenter.params
    )

    def descend(w, grad):
        return w - 0.5 * 0.1 * (grad + 0.02 * w * (w.ndim == 4))

    expected = jax.tree.map(descend, state.segmenter.params, grads)
    assert_close(after.segmenter.params, expected)
    assert_close(after.segmenter.batch_stats, stats)
    assert metrics["loss"] == metrics["loss_seg"]
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)


def test_with_alpha_zero_the_adversarial_step_equals_the_supervised_one(batch):
    supervised, _ = STEP(
        initial_state(adversarial=False), batch, HYPER, objective=SUPERVISED
    )
    adversarial, _ = STEP(
        initial_state(), batch, HYPER._replace(alpha=0.0), objective=ADVERSARIAL
    )
    assert_close(adversarial.segmenter, supervised.segmenter)


def test_changing_a_number_compiles_nothing(batch):
    # This jit is not shared, so its cache has only the programs of these calls.
    step = jax.jit(functools.partial(steps.train_step, objective=ADVERSARIAL))
    step(initial_state(), batch, HYPER)
    assert step._cache_size() == 1
    TRACES.clear()
    results = []
    for name in (
        "temperature_seg",
        "temperature_adv",
        "temperature_d",
        "alpha",
        "learning_rate_g",
        "learning_rate_d",
        "momentum",
        "weight_decay",
        "seed",
    ):
        other = HYPER._replace(**{name: type(getattr(HYPER, name))(3)})
        state, _ = step(initial_state(), batch, other)
        results.append((state.segmenter, state.discriminator))
    step(initial_state(), batch, HYPER._replace(learning_rate_schedule=SCHEDULE / 2))
    assert step._cache_size() == 1
    assert TRACES == []
    # Every number changes the result, except momentum, which starts at zero.
    same, _ = step(initial_state(), batch, HYPER)
    changed = [
        any(
            np.any(a != b)
            for a, b in zip(
                jax.tree.leaves(players),
                jax.tree.leaves((same.segmenter, same.discriminator)),
                strict=True,
            )
        )
        for players in results
    ]
    assert changed == [True] * 6 + [False] + [True] * 2


def test_the_compiler_options_change_at_most_the_rounding(batch):
    results = []
    for options in (None, COMPILER_OPTIONS):
        step = jax.jit(
            functools.partial(steps.train_step, objective=ADVERSARIAL),
            donate_argnums=0,  # as in training: they leave out copies of the state
            compiler_options=options,
        )
        state = jax.tree.map(jnp.copy, initial_state())
        for _ in range(3):
            state, metrics = step(state, batch, HYPER)
        results.append((state, metrics))
    assert_close(*results)


def test_the_segmenter_runs_forward_once_and_d_three_times():
    # D sees p for L_adv, then X and p for L_D.
    TRACES.clear()
    jax.eval_shape(
        functools.partial(steps.train_step, objective=ADVERSARIAL),
        initial_state(),
        {
            "image": jnp.zeros((2, 8, 8, 3), jnp.uint8),
            "label": jnp.zeros((2, 8, 8), jnp.uint8),
        },
        HYPER,
    )
    assert sorted(TRACES) == ["discriminator"] * 3 + ["segmenter"]


def test_neither_update_depends_on_the_hyperparameters_of_the_other_player(batch):
    base, _ = STEP(initial_state(), batch, HYPER, objective=ADVERSARIAL)
    numbers_of_d = HYPER._replace(learning_rate_d=1.0, temperature_d=0.1)
    after, _ = STEP(initial_state(), batch, numbers_of_d, objective=ADVERSARIAL)
    assert_equal(after.segmenter, base.segmenter)
    numbers_of_g = HYPER._replace(
        learning_rate_g=1.0, temperature_seg=3.0, temperature_adv=3.0, alpha=9.0
    )
    after, _ = STEP(initial_state(), batch, numbers_of_g, objective=ADVERSARIAL)
    assert_equal(after.discriminator, base.discriminator)


def test_void_pixels_affect_neither_player(batch):
    # The images differ only at void pixels, and this segmenter has no other context.
    void = (batch["label"] == IGNORE_LABEL)[..., None]
    other = batch | {"image": jnp.where(void, 255 - batch["image"], batch["image"])}
    state = initial_state(segmenter=Pixelwise())
    one, _ = STEP(state, batch, HYPER, objective=PIXELWISE)
    two, _ = STEP(state, other, HYPER, objective=PIXELWISE)
    assert_close((one.segmenter, one.discriminator), (two.segmenter, two.discriminator))
    unmasked, _ = STEP(
        state, other, HYPER, objective=dataclasses.replace(PIXELWISE, mask_void=False)
    )
    with pytest.raises(AssertionError):
        assert_close(unmasked.discriminator, one.discriminator)


def test_a_batch_of_only_void_pixels_stays_finite_and_does_not_update_the_segmenter(
    batch,
):
    void = batch | {"label": jnp.full_like(batch["label"], IGNORE_LABEL)}
    state = initial_state()
    hyper = HYPER._replace(weight_decay=0.0)
    after, metrics = STEP(state, void, hyper, objective=ADVERSARIAL)
    assert metrics["loss_seg"] == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after, metrics)))
    assert_equal(after.segmenter.params, state.segmenter.params)


def test_randomness_depends_only_on_seed_and_step(batch):
    state = initial_state()
    repeated = [
        STEP(state, batch, HYPER, objective=ADVERSARIAL)[1]["loss"] for _ in range(2)
    ]
    assert repeated[0] == repeated[1]
    later = state.replace(step=jnp.int32(1))
    assert STEP(later, batch, HYPER, objective=ADVERSARIAL)[1]["loss"] != repeated[0]
    seeded = HYPER._replace(seed=8)
    assert STEP(state, batch, seeded, objective=ADVERSARIAL)[1]["loss"] != repeated[0]


def test_one_batch_overfits(batch):
    # Each label is a function of its pixel's color, so that it can be learned.
    label = (batch["image"][..., 0] // 86).astype(jnp.uint8)
    learnable = batch | {"label": label.at[:, :2].set(IGNORE_LABEL)}
    hyper = HYPER._replace(
        learning_rate_schedule=np.ones_like(SCHEDULE),
        weight_decay=0.0,
        learning_rate_g=0.05,
        alpha=0.01,
    )

    state = initial_state(segmenter=Pixelwise())
    losses_seg = []
    for _ in range(200):
        state, metrics = STEP(state, learnable, hyper, objective=PIXELWISE)
        losses_seg.append(float(metrics["loss_seg"]))
    assert losses_seg[-1] < 0.1 * losses_seg[0]
    logits = predict(state.segmenter.variables, batch["image"], segmenter=Pixelwise())
    scored = learnable["label"] != IGNORE_LABEL
    correct = (logits.argmax(-1) == learnable["label"])[scored]
    assert correct.mean() > 0.97


def test_an_lsgan_discriminator_learns_to_tell_real_from_fake(batch):
    hyper = HYPER._replace(
        learning_rate_schedule=np.ones_like(SCHEDULE),
        learning_rate_g=0.0,
        weight_decay=0.0,
    )
    state = initial_state()
    for _ in range(60):
        state, metrics = STEP(state, batch, hyper, objective=ADVERSARIAL)
    assert metrics["d_real"] > 0.8
    assert metrics["d_fake"] < 0.2
    assert metrics["loss_d"] < 0.05


def test_predict_uses_running_statistics_and_no_dropout(batch):
    state = initial_state()
    one, two = (
        predict(state.segmenter.variables, batch["image"][:n], segmenter=Segmenter())
        for n in (1, 4)
    )
    np.testing.assert_allclose(one[0], two[0], rtol=1e-5, atol=1e-6)


def test_a_loss_scale_does_not_change_a_finite_update(batch):
    plain, _ = STEP(initial_state(), batch, HYPER, objective=ADVERSARIAL)
    scaled, metrics = STEP(
        initial_state(scale=2.0**10), batch, HYPER, objective=ADVERSARIAL
    )
    assert_close(scaled.segmenter.variables, plain.segmenter.variables)
    assert_close(scaled.discriminator.variables, plain.discriminator.variables)
    assert metrics["skipped_g"] == metrics["skipped_d"] == 0


def test_an_overflow_skips_the_update_and_halves_the_loss_scale(batch):
    # Only the gradient of the segmenter overflows float32; D is updated.
    overflowing = make_objective(Segmenter(gain=1e4), Discriminator())
    state = initial_state(scale=2.0**126)
    after, metrics = STEP(
        state, batch, HYPER._replace(alpha=0.0), objective=overflowing
    )
    assert metrics["skipped_g"] == 1
    assert metrics["loss_scale_g"] == 2.0**125
    assert np.isfinite(metrics["grad_norm_g"])
    assert_equal(after.segmenter.params, state.segmenter.params)
    assert_equal(after.segmenter.opt_state, state.segmenter.opt_state)
    assert np.isfinite(metrics["loss"])
    assert int(after.step) == 1


def test_critic_steps_are_repeated_updates_of_d_on_the_same_class_maps(batch):
    # The segmenter is not updated and has no dropout, so three steps with one update
    # of D each use the same class maps as one step with three updates.
    hyper = HYPER._replace(
        learning_rate_schedule=np.ones_like(SCHEDULE),
        learning_rate_g=0.0,
        weight_decay=0.0,
    )
    state = initial_state(segmenter=Pixelwise())
    three, metrics = STEP(
        state, batch, hyper, objective=dataclasses.replace(PIXELWISE, critic_steps=3)
    )
    for _ in range(3):
        state, last = STEP(state, batch, hyper, objective=PIXELWISE)
    assert_close(three.discriminator, state.discriminator)
    for name in ("loss_d", "d_real", "d_fake", "grad_norm_d"):
        np.testing.assert_allclose(metrics[name], last[name], rtol=1e-4, atol=1e-6)
    assert int(three.step) == 1


def test_every_skipped_update_of_d_is_counted(batch):
    adversary = PIXELWISE.adversary._replace(
        discriminator_loss=lambda d_real, d_fake: 1e6 * jnp.mean(d_real - d_fake)
    )
    objective = dataclasses.replace(PIXELWISE, adversary=adversary, critic_steps=3)
    state = initial_state(scale=2.0**126, segmenter=Pixelwise())
    after, metrics = STEP(state, batch, HYPER, objective=objective)
    assert metrics["skipped_d"] == 3 and metrics["loss_scale_d"] == 2.0**123
    assert_equal(after.discriminator.params, state.discriminator.params)


def test_further_critic_steps_do_not_affect_the_segmenter_in_the_same_step(batch):
    one, _ = STEP(initial_state(), batch, HYPER, objective=ADVERSARIAL)
    objective = dataclasses.replace(ADVERSARIAL, critic_steps=4)
    four, _ = STEP(initial_state(), batch, HYPER, objective=objective)
    assert_close(four.segmenter, one.segmenter)
    assert_all_changed(four.discriminator.params, one.discriminator.params)


def test_a_penalty_gets_the_discriminator_both_class_maps_and_a_key(batch):
    """The gradient with the penalty of WGAN-GP equals a finite difference."""
    passed = {}

    def penalty(discriminate, real, fake, *, key):
        passed.update(real=real, fake=fake)
        weight = jax.random.uniform(key, (len(real), 1, 1, 1))
        mixed = weight * real + (1 - weight) * fake
        slope = jax.grad(lambda x: discriminate(x).sum())(mixed)
        norm = jnp.sqrt(jnp.sum(slope**2, axis=(1, 2, 3)) + 1e-12)
        return 10 * jnp.mean((norm - 1) ** 2)

    class Critic(nn.Module):
        """A discriminator without BatchNorm, as WGAN-GP requires."""

        @nn.compact
        def __call__(self, x, *, train):
            x = nn.Conv(4, (4, 4), strides=2)(x)
            return nn.Conv(1, (4, 4), strides=2)(nn.softplus(x))

    lsgan = adversaries.ADVERSARIES["lsgan"]
    plain = make_objective(Pixelwise(), Critic())
    penalized = dataclasses.replace(plain, adversary=lsgan._replace(penalty=penalty))
    state = make_state(Pixelwise(), Critic(), size=8, num_classes=CLASSES)

    def gradients(objective, state):
        (_, gradients_d), _, metrics = steps.compute_gradients(
            state,
            batch,
            HYPER,
            key=steps.step_key(state, HYPER),
            seg_weight=1.0,
            objective=objective,
        )
        return gradients_d.grads, metrics["loss_d"]

    with_penalty, loss = gradients(penalized, state)
    without, loss_without = gradients(plain, state)
    assert loss > loss_without
    np.testing.assert_allclose(passed["fake"].sum(-1)[:, 2:], 1, rtol=1e-5)
    np.testing.assert_array_equal(passed["real"][:, :2], 0)

    kernel, direction = (
        tree["Conv_0"]["kernel"] for tree in (state.discriminator.params, with_penalty)
    )
    unit = direction / jnp.linalg.norm(direction)

    def loss_at(distance):
        params = dict(state.discriminator.params)
        params["Conv_0"] = params["Conv_0"] | {"kernel": kernel + distance * unit}
        player = state.discriminator.replace(params=params)
        return gradients(penalized, state.replace(discriminator=player))[1]

    slope = (loss_at(5e-3) - loss_at(-5e-3)) / 1e-2
    np.testing.assert_allclose(slope, jnp.linalg.norm(direction), rtol=1e-2)
    assert optax.tree.norm(with_penalty) != optax.tree.norm(without)


@pytest.mark.parametrize("change", ["real", "smooth_labels"])
def test_a_term_that_is_off_changes_no_bit_and_one_that_is_on_only_its_player(
    batch, change
):
    value = {"real": "matched", "smooth_labels": True}[change]
    hyper = HYPER._replace(label_smoothing=0.1)  # has no effect if the term is off
    on, _ = STEP(
        initial_state(),
        batch,
        hyper,
        objective=dataclasses.replace(ADVERSARIAL, **{change: value}),
    )
    off, _ = STEP(initial_state(), batch, hyper, objective=ADVERSARIAL)
    as_before, _ = STEP(initial_state(), batch, HYPER, objective=ADVERSARIAL)
    assert_equal(off, as_before)
    trained = {"real": "discriminator", "smooth_labels": "segmenter"}[change]
    for name in ("segmenter", "discriminator"):
        now, before = (jax.tree.leaves(getattr(x, name).opt_state) for x in (on, off))
        # Two programs may round differently what they both compute.
        changed = [
            np.abs(a - b).max() > 1e-6 * np.abs(b).max()
            for a, b in zip(now, before, strict=True)
        ]
        assert any(changed) == (name == trained)
