"""Networks and weight files of torchvision and timm, compared with their own code.

Weights are drawn from a fixed seed, written to a file with the library's tensor names,
and loaded by `load_pretrained`. Logits and, after a step in training mode, the running
statistics of every layer must equal those of golden/make_torchvision.py.
"""

import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from tempseg_jax.models.mobilenet import MobileNetV3, divisible_channels
from tempseg_jax.models.resnet import ResNet
from tempseg_jax.models.segmenter import BackboneAndHead
from tempseg_jax.models.weights import catalog, pretrained
from tempseg_jax.models.weights.layouts import (
    DEEPLABV3_RESNET50,
    FCN_RESNET50,
    LRASPP_MOBILENET_V3,
    TIMM_MOBILENET_V3,
    TIMM_RESNET50_D,
    Layout,
)
from tempseg_jax.models.weights.layouts.resnet import timm_d_rows, torchvision_rows
from tests.models.golden.draw import draw, draw_fading, summarize

GOLDEN = Path(__file__).parent / "golden"
BLOCKS = (1, 2, 2, 2)
SHAPE = (2, 64, 96, 3)
CLASSES = 5
RTOL = 1e-4  # of the largest magnitude


class Case(NamedTuple):
    """A network whose golden outputs are in the file of this case."""

    network: BackboneAndHead
    layout: Layout


def _segmenter(backbone, layout, *, width, **fields):
    fields = {"dropout": 0.0} | fields
    return BackboneAndHead(
        backbone, CLASSES, layout.preprocessing, width, jnp.float32, **fields
    )


def _narrow_resnet(layout, *, output_stride, **fields):
    """Return an eighth of a ResNet with few blocks, and its layout."""
    epsilon = layout.preprocessing.batch_norm_epsilon
    backbone = ResNet(
        BLOCKS, True, epsilon, 1 / 8, jnp.float32, False, output_stride=output_stride
    )
    of_head = [r for r in layout.rows if not r.file.startswith("backbone.")]
    layout = layout._replace(
        rows=(*torchvision_rows(BLOCKS, "backbone."), *of_head),
        first_kernel=(7, 7, 3, 8),
    )
    return Case(_segmenter(backbone, layout, width=1 / 8, **fields), layout)


def _mobilenet(layout, *, width, output_stride, head):
    epsilon = layout.preprocessing.batch_norm_epsilon
    backbone = MobileNetV3(
        epsilon, width, jnp.float32, False, output_stride=output_stride
    )
    first = (3, 3, 3, divisible_channels(16 * width))
    layout = layout._replace(first_kernel=first)
    # torchvision does not multiply the head's channels by the width.
    return Case(_segmenter(backbone, layout, width=1.0, head=head), layout)


def _resnet50d():
    layout = TIMM_RESNET50_D._replace(
        rows=tuple(timm_d_rows(BLOCKS)), first_kernel=(3, 3, 3, 4)
    )
    backbone = ResNet(
        BLOCKS,
        True,
        1e-5,
        1 / 8,
        jnp.float32,
        False,
        output_stride=16,
        variant_d=True,
    )
    return Case(_segmenter(backbone, layout, width=1 / 8), layout)


CASES = {
    "fcn": _narrow_resnet(FCN_RESNET50, output_stride=16, head="fcn", auxiliary=True),
    "deeplabv3": _narrow_resnet(
        DEEPLABV3_RESNET50, output_stride=8, head="aspp", auxiliary=True
    ),
    "lraspp": _mobilenet(
        LRASPP_MOBILENET_V3, width=0.5, output_stride=16, head="lraspp"
    ),
    "timm_mobilenet": _mobilenet(
        TIMM_MOBILENET_V3, width=1.0, output_stride=32, head="score"
    ),
    "resnet50d": _resnet50d(),
}


def _draw(name, shape, kind):
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 0
    return draw(name, shape, kind, fan_in=fan_in)


@pytest.fixture(scope="module", params=CASES)
def loaded(request, tmp_path_factory):
    """Return (name, case, variables loaded from a file)."""
    case = CASES[request.param]
    image = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    shapes = jax.eval_shape(
        lambda k: case.network.init(k, image, train=False), jax.random.key(0)
    )
    flat = flatten_dict(shapes, sep="/")
    tensors = {
        row.file: _draw(
            row.file,
            row.arrangement.file_shape(flat[row.linen].shape),
            row.linen.rpartition("/")[2],
        )
        for row in case.layout.rows
    }
    path = tmp_path_factory.mktemp(request.param) / "weights.safetensors"
    save_file(tensors, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "recognize", lambda names: case.layout)
        variables, report = pretrained.load_pretrained(
            shapes, str(path), segmenter_name=case.layout.segmenter, missing=()
        )
    assert not report.unused
    flat = flatten_dict(variables, sep="/")
    for name in report.fresh:  # a score layer that the library does not have
        module, kind = name.split("/")[-2:]
        if kind == "kernel":
            shape = flat[name].shape
            value = _draw(f"{module}.weight", (shape[3], shape[2], 1, 1), kind)
            flat[name] = value.transpose(2, 3, 1, 0)
        else:
            flat[name] = _draw(f"{module}.bias", flat[name].shape, kind)
    return request.param, case, unflatten_dict(flat, sep="/")


def _run(network, variables, *, train):
    def run(variables, image):
        return network.apply(
            variables, image, train=train, mutable=["batch_stats", "intermediates"]
        )

    with jax.default_matmul_precision("highest"):
        return jax.jit(run)(variables, draw_fading(SHAPE))


def _assert_golden(name, outputs):
    golden = np.load(GOLDEN / f"{name}_{SHAPE[1]}x{SHAPE[2]}.npz")
    expected = dict(zip(map(str, golden["names"]), golden["values"], strict=True))
    for key in outputs:
        np.testing.assert_allclose(
            summarize(key, outputs[key]),
            expected[key],
            rtol=0,
            atol=RTOL * expected[key][-1],
            err_msg=f"{name}: {key}",
        )
    return expected


def test_logits_in_evaluation_are_those_of_the_library(loaded):
    name, case, variables = loaded
    logits, _ = _run(case.network, variables, train=False)
    _assert_golden(name, {"logits": logits})


def test_logits_and_statistics_in_training_are_those_of_the_library(loaded):
    name, case, variables = loaded
    logits, state = _run(case.network, variables, train=True)
    outputs = {"train out": logits}
    if case.network.auxiliary:
        outputs["train aux"] = state["intermediates"]["auxiliary_logits"][0]
    statistics = flatten_dict({"batch_stats": state["batch_stats"]}, sep="/")
    for row in case.layout.rows:
        if row.linen in statistics:
            outputs[row.file] = statistics[row.linen]
    assert _assert_golden(name, outputs).keys() - outputs.keys() == {"logits"}
