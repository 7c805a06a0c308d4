"""Which tensors of torchvision's segmentation files a network loads and exports."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tempseg_jax.models.weights.export import to_torchvision
from tempseg_jax.models.weights.files import Index
from tempseg_jax.models.weights.layouts import (
    DEEPLABV3_RESNET50,
    FCN_RESNET50,
    FCN_RESNET101,
    LRASPP_MOBILENET_V3,
    TORCHVISION_RESNET50,
    TORCHVISION_RESNET101,
    recognize,
)
from tempseg_jax.models.weights.pretrained import _needed_rows
from tests.models.weights.shapes import file_shapes, head_of, variable_shapes

NARROW = {"width": 1 / 16}


def loaded(layout, *, classes=3, **head):
    """Return the modules that a network of three classes loads from a file."""
    fresh = flatten_dict(variable_shapes("resnet50_v15", **head), sep="/")
    shapes = {
        name: (classes, *shape[1:]) if name.startswith(layout.scores) else shape
        for name, shape in file_shapes(layout).items()
    }
    rows = _needed_rows(layout, fresh, Index(shapes, {}))
    return {row.linen.split("/", 1)[1].rpartition("/")[0] for row in rows}


def test_a_file_with_other_classes_gives_all_but_the_scores():
    head = head_of(FCN_RESNET50)
    all_modules = loaded(FCN_RESNET50, **head)
    assert {"head/score", "auxiliary/score", "head/conv1", "conv1"} < all_modules
    others = loaded(FCN_RESNET50, classes=21, **head)
    assert all_modules - others == {"head/score", "auxiliary/score"}


def test_a_network_without_the_auxiliary_head_loads_the_rest():
    both = loaded(FCN_RESNET50, **head_of(FCN_RESNET50))
    one = loaded(FCN_RESNET50, head="fcn", output_stride=8)
    assert both - one == {f"auxiliary/{x}" for x in ("conv1", "bn1", "score")}


def test_another_head_loads_the_layers_that_it_shares_but_no_scores():
    decoder = loaded(DEEPLABV3_RESNET50, head="deeplabv3plus", output_stride=16)
    assert {"head/conv_pooled", "head/bn_projection", "stage5_block3/bn3"} < decoder
    assert not {"head/score", "head/conv_3x3", "head/conv_fused1"} & decoder
    plain = loaded(DEEPLABV3_RESNET50)
    assert plain == {x for x in decoder if not x.startswith("head/")}


@pytest.mark.parametrize(
    "layout",
    [FCN_RESNET50, FCN_RESNET101, DEEPLABV3_RESNET50, LRASPP_MOBILENET_V3],
    ids=lambda layout: layout.title,
)
def test_an_export_has_exactly_the_names_of_torchvision(layout):
    shapes = variable_shapes(layout.segmenter, **NARROW, **head_of(layout))
    flat = {n: np.zeros(x.shape) for n, x in flatten_dict(shapes, sep="/").items()}
    tensors = to_torchvision(
        unflatten_dict(flat, sep="/"), segmenter_name=layout.segmenter
    )
    assert tensors.keys() == {row.file for row in layout.rows}
    assert recognize(frozenset(tensors)) == layout


def test_a_head_that_torchvision_does_not_have_keeps_its_names():
    shapes = variable_shapes(
        "resnet50_v15", head="deeplabv3plus", output_stride=16, **NARROW
    )
    flat = {n: np.zeros(x.shape) for n, x in flatten_dict(shapes, sep="/").items()}
    tensors = to_torchvision(
        unflatten_dict(flat, sep="/"), segmenter_name="resnet50_v15"
    )
    assert len(tensors) == len(flat)
    own = tensors.keys() - {row.file for row in TORCHVISION_RESNET50.rows}
    assert all(name.startswith("head.") for name in own)
    assert tensors["head.conv_fused1.weight"].shape == (16, 19, 3, 3)
    assert {"head.bn_low.running_var", "head.bn_low.weight"} < own


def test_a_resnet_101_is_not_taken_for_a_resnet_50():
    names = frozenset(row.file for row in TORCHVISION_RESNET101.rows)
    assert recognize(names) == TORCHVISION_RESNET101
    names = frozenset(row.file for row in FCN_RESNET101.rows)
    assert recognize(names) == FCN_RESNET101
