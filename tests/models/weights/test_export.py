"""Exporting weights with torchvision's tensor names, and loading them again."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION
from tempseg_jax.models.weights.catalog import preprocessing_of
from tempseg_jax.models.weights.export import save_torchvision, to_torchvision
from tempseg_jax.models.weights.layouts import TORCHVISION_VGG16
from tempseg_jax.models.weights.pretrained import load_pretrained
from tests.models.weights.shapes import variable_shapes


@pytest.fixture(scope="module")
def drawn_resnet50():
    random = np.random.default_rng(0)
    flat = flatten_dict(variable_shapes("resnet50_v15"), sep="/")
    drawn = {n: random.random(x.shape, np.float32) for n, x in flat.items()}
    return unflatten_dict(drawn, sep="/")


@pytest.mark.parametrize("preprocessing", [CAFFE, TORCHVISION], ids=["caffe", "tv"])
def test_an_export_loads_again_with_the_preprocessing_of_the_training(
    tmp_path, drawn_resnet50, preprocessing
):
    path = tmp_path / "out.safetensors"
    kind = {"segmenter_name": "resnet50_v15"}
    save_torchvision(path, drawn_resnet50, preprocessing=preprocessing, **kind)
    assert preprocessing_of(str(path)) == preprocessing
    shapes = variable_shapes("resnet50_v15")
    variables, report = load_pretrained(shapes, str(path), missing=(), **kind)
    assert report.unused == ("score.bias", "score.weight")
    expected = flatten_dict(drawn_resnet50, sep="/")
    for name, value in flatten_dict(variables, sep="/").items():
        if name in report.loaded:
            np.testing.assert_array_equal(value, expected[name])
    assert list(tmp_path.iterdir()) == [path]


def test_fcn8s_converts_to_torchvision_and_back():
    random = np.random.default_rng(0)
    shapes = flatten_dict(variable_shapes("fcn8s", width=1 / 16), sep="/")
    flat = {n: random.random(x.shape, np.float32) for n, x in shapes.items()}
    tensors = to_torchvision(unflatten_dict(flat, sep="/"), segmenter_name="fcn8s")
    assert tensors["features.0.weight"].shape == (4, 3, 3, 3)
    assert tensors["classifier.0.weight"].shape == (256, 32 * 7 * 7)
    assert tensors["score_pool3.weight"].shape == (3, 16, 1, 1)
    assert len(tensors) == len(flat)
    kernel = flat["params/upsample8/kernel"]
    assert tensors["upsample8.weight"][1, 2, 3, 4] == kernel[3, 4, 1, 2]
    for row in TORCHVISION_VGG16.rows:
        value = row.arrangement.from_file(tensors[row.file], flat[row.linen].shape)
        np.testing.assert_array_equal(value, flat[row.linen])


def test_resnet50_v1_cannot_be_exported_to_torchvision():
    with pytest.raises(ValueError, match="resnet50_v15"):
        to_torchvision({}, segmenter_name="resnet50")
