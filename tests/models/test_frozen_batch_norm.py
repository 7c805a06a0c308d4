"""BatchNorm with frozen statistics, and dropout before the score of a ResNet."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tempseg_jax import builders, steps
from tempseg_jax.models import with_field
from tempseg_jax.models.frozen_batch_norm import FrozenBatchNorm
from tests.support import (
    load_config,
    make_hyper,
    make_objective,
    make_segmenter,
    make_state,
)

HYPER = make_hyper(
    learning_rate_d=0.0,
    weight_decay=0.01,
    alpha=0.0,
)


def make_shallow(**fields):
    """Return a ResNet-50 through stage 2, which compiles quickly."""
    segmenter = make_segmenter("resnet50_c4")
    backbone = segmenter.backbone.clone(last_stage=2, output_stride=4)
    segmenter = segmenter.clone(backbone=backbone)
    for field, value in fields.items():
        segmenter = with_field(segmenter, field, value)
    return segmenter


def jittered(variables):
    """Return variables away from their initial values; variances stay positive."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + rng.uniform(0.05, 0.2, x.shape).astype(np.float32), variables
    )


def random_image(count):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3))
    return jnp.array(pixels.astype(np.uint8))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_equals_batch_norm_in_evaluation_mode_and_its_gradients(dtype):
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5)).astype(dtype)
    norm = nn.BatchNorm(use_running_average=True, epsilon=1e-3, dtype=dtype)
    frozen = FrozenBatchNorm(1e-3, True, dtype, negative_slope=None)
    variables = jittered(norm.init(jax.random.key(1), x))
    own = frozen.init(jax.random.key(1), x, train=True)
    assert jax.tree.structure(own) == jax.tree.structure(variables)

    def ours(variables, x):
        return frozen.apply(variables, x, train=True)

    def loss(apply, variables, x):
        return jnp.sum(jnp.sin(apply(variables, x).astype(jnp.float32)))

    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    assert ours(variables, x).dtype == dtype
    for function in (lambda f, v, x: f(v, x), jax.grad(loss, argnums=(1, 2))):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(
                np.float32(a), np.float32(b), rtol=tolerance, atol=tolerance
            ),
            function(ours, variables, x),
            function(norm.apply, variables, x),
        )


@pytest.mark.parametrize("freeze", ["statistics", "all"])
def test_a_step_leaves_frozen_values_bitwise_unchanged(freeze):
    segmenter = make_shallow(freeze_batch_norm=freeze)
    state = make_state(segmenter, None, size=32, num_classes=5)
    player = state.segmenter
    params = jittered(player.params)
    state = state.replace(
        segmenter=player.replace(
            params=params, batch_stats=jittered(player.batch_stats)
        )
    )
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8),
        "label": rng.integers(0, 5, (2, 32, 32)).astype(np.uint8),
    }
    step = jax.jit(steps.train_step, static_argnames="objective")
    after, _ = step(state, batch, HYPER, objective=make_objective(segmenter, None))
    changed = {
        path: bool(np.any(before != now))
        for path, before, now in zip(
            flatten_dict(state.segmenter.variables, sep="/"),
            flatten_dict(state.segmenter.variables, sep="/").values(),
            flatten_dict(after.segmenter.variables, sep="/").values(),
            strict=True,
        )
    }
    for path, is_changed in changed.items():
        is_norm = path.split("/")[-2].startswith("bn")
        frozen = is_norm and (freeze == "all" or path.startswith("batch_stats"))
        if frozen or path.endswith("kernel") or is_norm:
            assert is_changed != frozen, path
    assert sum(path.startswith("batch_stats") for path in changed) == 22


def test_a_frozen_network_gives_equal_logits_in_training_and_evaluation():
    segmenter = make_shallow(freeze_batch_norm="all")
    image = random_image(2)
    variables = jittered(segmenter.init(jax.random.key(0), image, train=False))

    def logits(network, train):
        return network.apply(
            variables, image, train=train, mutable=["batch_stats"] if train else False
        )

    expected = logits(make_shallow(), False)
    training, updated = logits(segmenter, True)
    np.testing.assert_array_equal(training, logits(segmenter, False))
    np.testing.assert_allclose(training, expected, rtol=1e-4, atol=1e-4)
    jax.tree.map(
        np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"]
    )


def test_dropout_before_the_score_is_random_in_training_only():
    plain = make_shallow(freeze_batch_norm="all")
    dropping = plain.clone(dropout=0.5)
    image = random_image(1)
    variables = jittered(plain.init(jax.random.key(0), image, train=False))

    @jax.jit
    @jax.vmap
    def train_logits(key):
        rngs = {"dropout": key}
        return dropping.apply(variables, image, train=True, rngs=rngs)

    expected = plain.apply(variables, image, train=False)
    np.testing.assert_array_equal(
        dropping.apply(variables, image, train=False), expected
    )
    logits = train_logits(jax.random.split(jax.random.key(0), 64))
    mean, spread = np.mean(logits, axis=0), np.std(logits, axis=0)
    assert spread.min() > 0
    np.testing.assert_array_less(np.abs(mean - expected), 5 * spread / 8)


def test_a_network_without_the_layers_refuses_their_fields():
    field, value = "freeze_batch_norm", "all"
    config = load_config("demo")
    config.model[field] = value
    with pytest.raises(
        ValueError, match=f"^model.{field}: {value!r} is not supported by .*'fcn8s'"
    ):
        builders.build_objective(config, num_classes=5)
    config.model.name = "resnet50_c4"
    segmenter = builders.build_objective(config, num_classes=5).segmenter
    assert getattr(segmenter.backbone, field) == value
