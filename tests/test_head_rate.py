"""The factor on the learning rate of the score layers, and its relation to T_G."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tempseg_jax import optim, steps
from tempseg_jax.types import IGNORE_LABEL
from tests.support import make_hyper, make_objective, make_segmenter, make_state

CLASSES = 3
STEPS = 4


class Segmenter(nn.Module):
    """A convolution with BatchNorm, and score layers that start at zero."""

    @nn.compact
    def __call__(self, image, *, train):
        x = image.astype(jnp.float32) / 255
        x = nn.Conv(4, (3, 3), name="conv1")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        zeros = nn.initializers.zeros
        coarse = nn.Conv(CLASSES, (1, 1), kernel_init=zeros, name="score_coarse")(x)
        x = nn.Conv(CLASSES, (1, 1), kernel_init=zeros, name="score")(x) + coarse
        return nn.Conv(CLASSES, (1, 1), use_bias=False, name="upsample")(x)


class Discriminator(nn.Module):
    """A strided convolution."""

    @nn.compact
    def __call__(self, probabilities, *, train):
        return nn.Conv(1, (4, 4), strides=2)(probabilities)


HYPER = make_hyper(
    seed=7,
    learning_rate_schedule=np.array([0.5, 1.0, 0.75, 0.25], np.float32),
    weight_decay=0.02,
)
STEP = jax.jit(steps.train_step, static_argnames="objective")


def train(hyper, *, adversarial):
    """Return the states after every step."""
    objective = make_objective(Segmenter(), Discriminator() if adversarial else None)
    state = make_state(
        Segmenter(), objective.discriminator, size=8, num_classes=CLASSES
    )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    label = rng.integers(0, CLASSES, (4, 8, 8)).astype(np.uint8)
    label[:, :2] = IGNORE_LABEL
    states = []
    for _ in range(STEPS):
        state, _ = STEP(
            state, {"image": image, "label": label}, hyper, objective=objective
        )
        states.append(state)
    return states


@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 2.0, 0.7])
def test_a_temperature_in_l_seg_is_a_rate_of_the_score_layers(temperature, adversarial):
    t = temperature
    heated = HYPER._replace(temperature_seg=t, temperature_adv=0.5, temperature_d=2.0)
    factor = heated._replace(
        temperature_seg=1.0,
        temperature_adv=0.5 / t,
        temperature_d=2.0 / t,
        head_rate=1 / t**2,
    )
    # Multiplying by a power of two does not round, so that such runs are equal.
    tolerance = 0.0 if t in (0.5, 2.0) else 2e-5
    for a, b in zip(
        train(heated, adversarial=adversarial),
        train(factor, adversarial=adversarial),
        strict=True,
    ):
        expected = jax.tree.map(
            lambda x, head: x / t if head else x,
            a.segmenter.params,
            optim.head_mask(a.segmenter.params),
        )
        _assert_close(b.segmenter.params, expected, tolerance)
        _assert_close(b.segmenter.batch_stats, a.segmenter.batch_stats, tolerance)
        if adversarial:
            _assert_close(b.discriminator.params, a.discriminator.params, tolerance)
    score = b.segmenter.params["score"]["kernel"]
    assert np.abs(score).max() > 1e-3  # has left its start at zero


def test_without_the_rate_the_temperature_makes_a_difference():
    heated = train(HYPER._replace(temperature_seg=0.5), adversarial=False)[-1]
    plain = train(HYPER, adversarial=False)[-1]
    conv1 = [x.segmenter.params["conv1"]["kernel"] for x in (heated, plain)]
    assert np.abs(conv1[0] - conv1[1]).max() > 1e-3


def test_only_the_score_layers_are_trained_with_another_rate():
    states = [
        train(HYPER._replace(head_rate=rate), adversarial=False)[0]
        for rate in (1.0, 3.0)
    ]
    one, three = (flatten_dict(x.segmenter.params, sep="/") for x in states)
    for name in one:
        if name.startswith("score"):
            np.testing.assert_allclose(three[name], 3 * one[name], rtol=1e-6)
        else:
            np.testing.assert_array_equal(three[name], one[name])


@pytest.mark.parametrize(
    "name, layers",
    [
        ("resnet50", {"score"}),
        ("resnet50_c4", {"score"}),
        ("fcn8s", {"score_fc7", "score_pool4", "score_pool3"}),
    ],
)
def test_the_score_layers_of_the_networks_start_at_zero(name, layers):
    module = make_segmenter(name)
    image = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    params = jax.jit(lambda key: module.init(key, image, train=False))(
        jax.random.key(0)
    )["params"]
    marked = flatten_dict(optim.head_mask(params), sep="/")
    assert {path.split("/")[0] for path, head in marked.items() if head} == layers
    values = flatten_dict(params, sep="/")
    assert not any(values[path].any() for path, head in marked.items() if head)


def _assert_close(actual, expected, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )
