"""Heads, output strides and the auxiliary head, on networks with few blocks."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import tempseg_jax
from tempseg_jax import builders, models, optim, train
from tempseg_jax.models.heads import HEADS
from tempseg_jax.models.ops import SameConv
from tempseg_jax.models.resnet import ResNet
from tempseg_jax.models.segmenter import predict
from tempseg_jax.workdir.metrics_writer import read_metrics
from tests.support import make_segmenter

IMAGE = jnp.zeros((2, 64, 64, 3), jnp.uint8)
HEADS_WITH_BATCH_NORM = sorted(set(HEADS) - {"score"})


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Add a ResNet with one block in each stage to SEGMENTERS."""
    network = partial(models.resnet, blocks=(1, 1, 1, 1), v15=True)
    monkeypatch.setitem(models.SEGMENTERS, "tiny", network)


def init(module):
    return jax.eval_shape(
        partial(module.init, train=False), jax.random.key(0), IMAGE[:1, :32, :32]
    )


def drawn(variables):
    """Return variables with random values; variances are positive."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: (
            jnp.array(rng.uniform(0.2, 0.6, x.shape), jnp.float32)
            if x.ndim == 1
            else jnp.array(rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1])))
        ),
        variables,
    )


@pytest.mark.parametrize("v15", [False, True])
def test_features_of_all_output_strides_agree_where_they_coincide(v15):
    coarse = ResNet((1, 1, 2, 2), v15, 1e-5, 1 / 16, jnp.float32, False)
    x = jax.random.normal(jax.random.key(0), (2, 64, 96, 3))
    variables = drawn(
        jax.eval_shape(partial(coarse.init, train=False), jax.random.key(0), x)
    )

    def features(stride):
        module = coarse.clone(output_stride=stride)
        return jax.jit(partial(module.apply, train=False))(variables, x)

    expected = features(32)
    for stride in (16, 8):
        for stage, actual in features(stride).items():
            step = max(1, 2**stage // stride)
            assert actual.shape[1:3] == (64 * step // 2**stage, 96 * step // 2**stage)
            common = actual[:, ::step, ::step]
            np.testing.assert_allclose(common, expected[stage], rtol=2e-4, atol=1e-5)
    assert np.std(expected[5]) > 1e-2


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("stride", [32, 16, 8])
def test_every_head_scores_images_of_any_size(head, stride):
    if stride not in HEADS[head].output_strides:
        pytest.skip("refused, see below")
    module = make_segmenter("tiny", head=head, output_stride=stride, auxiliary=True)
    logits, state = jax.eval_shape(
        partial(module.apply, train=True, mutable=["intermediates", "batch_stats"]),
        init(module),
        jnp.zeros((2, 50, 39, 3), jnp.uint8),
        rngs={"dropout": jax.random.key(0)},
    )
    auxiliary = state["intermediates"]["auxiliary_logits"][0]
    assert logits.shape == auxiliary.shape == (2, 50, 39, 5)
    assert logits.dtype == auxiliary.dtype == jnp.float32


@pytest.mark.parametrize("name", ["fcn8s", "tiny"])
def test_predictions_in_bfloat16_have_no_equal_logits(name):
    """A few of 1,000 pixels have two largest logits if 16 bits hold the result."""
    module = make_segmenter(name, dtype=jnp.bfloat16)
    rng = np.random.default_rng(0)
    image = jnp.array(rng.integers(0, 256, (1, 128, 128, 3)), jnp.uint8)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: (
            jnp.array(rng.normal(size=x.shape), jnp.float32)
            if "score" in jax.tree_util.keystr(path)
            else x
        ),
        jax.jit(partial(module.init, train=False))(jax.random.key(0), image),
    )
    logits = np.sort(module.apply(variables, image, train=False), axis=-1)
    assert np.mean(logits[..., -1] == logits[..., -2]) < 2e-4
    assert np.std(logits) > 0.1


@pytest.mark.parametrize("head", HEADS_WITH_BATCH_NORM)
def test_the_rate_of_the_head_is_that_of_all_score_layers(head):
    module = make_segmenter("tiny", head=head, output_stride=16, auxiliary=True)
    marked = flatten_dict(optim.head_mask(init(module)["params"]), sep="/")
    layers = {path.rpartition("/")[0] for path in marked if marked[path]}
    own = {"head/score_low", "head/score_high"} if head == "lraspp" else {"head/score"}
    assert layers == own | {"auxiliary/score"}


def test_the_auxiliary_head_is_not_run_in_evaluation():
    plain = make_segmenter("tiny", head="fcn", output_stride=8)
    both = plain.clone(auxiliary=True)
    variables = init(both)
    without = {
        name: {k: v for k, v in values.items() if k != "auxiliary"}
        for name, values in variables.items()
    }
    forward = [
        jax.make_jaxpr(partial(predict, segmenter=module))(weights, IMAGE)
        for module, weights in ((plain, without), (both, variables))
    ]
    assert len(forward[0].eqns) == len(forward[1].eqns)
    assert variables["params"]["auxiliary"].keys() == {"conv1", "bn1", "score"}


def train_two_steps(config, folder, **changes):
    config.update_from_flattened_dict(
        {
            "steps": 2,
            "evaluate_every_epochs": 0.0,
            "log_every_steps": 1,
            "model.name": "tiny",
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
    )
    train.train(config, folder, allow_change=False)
    return read_metrics(folder)


def test_l_g_has_the_weighted_loss_of_the_auxiliary_head(demo_config, tmp_path):
    lines = train_two_steps(
        demo_config,
        tmp_path,
        accumulate=2,
        model__head="aspp",
        model__output_stride=16,
        objective__alpha=0.0,
        objective__auxiliary=0.4,
    )
    for x in lines:
        expected = x["train/loss_seg"] + 0.4 * x["train/loss_aux"]
        np.testing.assert_allclose(x["train/loss"], expected, rtol=1e-3)
        assert x["train/loss_aux"] > 0.1
    predictor = tempseg_jax.load(tmp_path)
    assert (predictor.segmenter.head, predictor.segmenter.auxiliary) == ("aspp", True)
    assert predictor.segmenter.backbone.output_stride == 16
    scores = predictor.variables["params"]["auxiliary"]["score"]["kernel"]
    assert np.abs(scores).max() > 0  # it was trained
    assert predictor(np.zeros((32, 32, 3), np.uint8)).shape == (32, 32)


def test_frozen_batch_norm_is_that_of_the_backbone(demo_config):
    demo_config.update_from_flattened_dict(
        {
            "model.name": "tiny",
            "model.head": "fcn",
            "model.output_stride": 8,
            "model.dropout": 0.25,
            "model.drop_connect": 0.5,
            "model.freeze_batch_norm": "statistics",
        }
    )
    module = builders.build_objective(demo_config, num_classes=3).segmenter
    assert (module.dropout, module.drop_connect) == (0.25, 0.5)
    assert module.backbone.freeze_batch_norm == "statistics"
    assert not hasattr(module, "freeze_batch_norm")


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"model.name": "tiny", "model.output_stride": 12},
            "model.output_stride: 12 is not one of 32, 16, 8, the output strides of",
        ),
        (
            {"model.name": "resnet50_c4", "model.output_stride": 32},
            "model.output_stride: 32 is not one of 16, 8, the",
        ),
        (
            {"model.name": "tiny", "model.head": "aspp"},
            "model.head: 'aspp' needs an output stride of 8 or 16, and that of "
            "model.name='tiny' is 32; set model.output_stride",
        ),
        (
            {"model.name": "resnet50_c4", "objective.auxiliary": 0.4},
            "objective.auxiliary: the auxiliary head scores stage 4, which is the last",
        ),
        (
            {"model.name": "fcn8s", "model.head": "fcn"},
            "model.head: 'fcn' is not supported by model.name='fcn8s'.*to 'score'",
        ),
        (
            {"model.name": "fcn8s", "model.output_stride": 16},
            "model.output_stride: 16 is not supported by model.name='fcn8s'.*to None",
        ),
        (
            {"model.name": "fcn8s", "objective.auxiliary": 0.4},
            "objective.auxiliary: 'above 0' is not supported by model.name='fcn8s'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(demo_config, changes, message):
    demo_config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=f"^{message}") as error:
        builders.build_objective(demo_config, num_classes=3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("output_stride, rates", [(8, [12, 24, 36]), (16, [6, 12, 18])])
def test_the_pyramid_has_the_dilations_of_deeplabv3(output_stride, rates):
    """The images of the golden files are too small to show them."""
    segmenter = make_segmenter("tiny", head="aspp", output_stride=output_stride)
    dilations = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, SameConv):
            dilations[context.module.name] = context.module.dilation
        return call(*args, **kwargs)

    image = jnp.zeros((1, 64, 64, 3), jnp.uint8)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda: segmenter.init(jax.random.key(0), image, train=False))
    assert [dilations[f"conv_dilated{i}"] for i in (1, 2, 3)] == rates
    assert dilations["conv_1x1"] == dilations["conv_projection"] == 1
