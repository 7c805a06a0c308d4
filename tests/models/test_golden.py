"""The networks and the loading of weight files, compared with PyTorch.

Weights are drawn from a fixed seed, written to files with torchvision's or Keras'
tensor names, and loaded by `load_pretrained`. The output of every convolution and
BatchNorm must then equal the reference values of golden/make_golden.py, an independent
implementation of the published definitions, for images that are not square.
"""

import math
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from tempseg_jax.models import SEGMENTERS, DCGANDiscriminator
from tempseg_jax.models.weights.catalog import preprocessing_of
from tempseg_jax.models.weights.layouts import (
    KERAS_RESNET50,
    TORCHVISION_RESNET50,
    TORCHVISION_VGG16,
)
from tempseg_jax.models.weights.pretrained import load_pretrained
from tests.models.golden.draw import draw, draw_image, summarize

GOLDEN = Path(__file__).parent / "golden"
SHAPES = {"64x96": (2, 64, 96, 3), "50x70": (1, 50, 70, 3)}
TRAIN_SHAPE = (4, 96, 128, 3)
FILES = {
    "resnet50": ("weights.h5", KERAS_RESNET50),
    "resnet50_c4": ("weights.h5", KERAS_RESNET50),
    "resnet50_v15": ("weights.safetensors", TORCHVISION_RESNET50),
    "fcn8s": ("weights.safetensors", TORCHVISION_VGG16),
}
CLASSES = 5
RTOL = 1e-4  # of the layer's largest magnitude


def _write(path, layout, shapes):
    """Write random weights to a file as torchvision or Keras would."""
    tensors = {}
    for row in layout.rows:
        if row.linen not in shapes:  # of stage 5
            continue
        shape, kind = shapes[row.linen].shape, row.linen.rpartition("/")[2]
        fan_in = math.prod(shape[:-1]) if kind == "kernel" else 0
        file_shape = row.arrangement.file_shape(shape)
        tensors[row.file] = draw(row.file, file_shape, kind, fan_in=fan_in)
    if path.suffix == ".safetensors":
        return save_file(tensors, path)
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            layer, role = name.split("/")
            file[f"{layer}/{layer}/{role}:0"] = tensor


def _draw_head(path, shape):
    """Draw a variable of the score layers or the upsampling, which no file has."""
    module, kind = path.split("/")[-2:]
    if kind == "bias":
        return draw(f"{module}.bias", shape, kind)
    if module == "upsample8":
        file_shape, axes, fan_in = (
            (shape[2], shape[3], 16, 16),
            (2, 3, 0, 1),
            4 * CLASSES,
        )
    else:
        file_shape, axes, fan_in = (shape[3], shape[2], 1, 1), (2, 3, 1, 0), shape[2]
    weight = draw(f"{module}.weight", file_shape, kind, fan_in=fan_in)
    return weight.transpose(axes)


@pytest.fixture(scope="module", params=FILES)
def network(request, tmp_path_factory):
    """Return (name, module, variables loaded from a file, layout)."""
    file, layout = FILES[request.param]
    path = tmp_path_factory.mktemp(request.param) / file
    module = SEGMENTERS[request.param](
        num_classes=CLASSES,
        preprocessing=layout.preprocessing,
        width=1.0,
        dtype=jnp.dtype("float32"),
        remat=False,
    )
    image = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    shapes = jax.eval_shape(
        lambda k: module.init(k, image, train=False), jax.random.key(0)
    )
    _write(path, layout, flatten_dict(shapes, sep="/"))
    assert preprocessing_of(str(path)) == module.preprocessing
    variables, report = load_pretrained(
        shapes, str(path), segmenter_name=request.param, missing=()
    )
    path.unlink()
    variables = flatten_dict(variables, sep="/")
    for name in report.fresh:
        variables[name] = _draw_head(name, variables[name].shape)
    return request.param, module, unflatten_dict(variables, sep="/"), layout


def _run(module, variables, x, *, train):
    """Return {path: array}: logits, outputs of all modules, running statistics."""

    @jax.jit
    def run(variables, x):
        return module.apply(
            variables,
            x,
            train=train,
            capture_intermediates=True,
            mutable=["intermediates", "batch_stats"],
        )

    with jax.default_matmul_precision("highest"):
        logits, state = run(variables, x)
    outputs = {"logits": logits}
    for path, (value, *_) in flatten_dict(state["intermediates"], sep="/").items():
        outputs[path.removesuffix("/__call__")] = value
    statistics = flatten_dict({"batch_stats": state.get("batch_stats", {})}, sep="/")
    return outputs | statistics | _unfused(outputs, variables, train=train)


def _unfused(outputs, variables, *, train):
    """Return {path: output} of convolutions and BatchNorm as PyTorch's layers have it.

    A convolution before BatchNorm leaves out its bias, and BatchNorm includes the
    activation that follows; the former must explain the latter.
    """
    values, unfused = flatten_dict(variables, sep="/"), {}
    for norm, activated in outputs.items():
        folder, slash, layer = norm.rpartition("/")
        conv = folder + slash + layer.replace("bn", "conv")
        if not layer.startswith("bn"):
            continue
        bias = values.get(f"params/{conv}/bias", np.float32(0))
        x = np.asarray(outputs[conv] + np.broadcast_to(bias, outputs[conv].shape))
        if train:
            mean, var = x.mean((0, 1, 2), np.float64), x.var((0, 1, 2), np.float64)
        else:
            mean, var = (values[f"batch_stats/{norm}/{k}"] for k in ("mean", "var"))
        epsilon = 1.001e-5 if f"params/{conv}/bias" in values and folder else 1e-5
        y = (x - mean) / np.sqrt(var + epsilon)
        y = y * values[f"params/{norm}/scale"] + values[f"params/{norm}/bias"]
        unfused |= {conv: x, norm: y}
        slope = {True: 0.2, False: 0.0}["conv5" in outputs]
        expected = (
            y if layer in ("bn0", "bn3") and folder else np.where(y > 0, y, slope * y)
        )
        atol = RTOL * np.abs(y).max()
        np.testing.assert_allclose(activated, expected, rtol=0, atol=atol, err_msg=norm)
    return unfused


def _assert_matches(case, outputs, names):
    """Compare every layer of a golden file; `names` maps its names to `outputs`."""
    golden = np.load(GOLDEN / f"{case}.npz")
    assert len(golden["names"]) > 8
    for name, expected in zip(golden["names"], golden["values"], strict=True):
        actual = summarize(str(name), outputs[names[name]])
        np.testing.assert_allclose(
            actual,
            expected,
            rtol=0,
            atol=RTOL * expected[-1],
            err_msg=f"{case}: {name}",
        )


def _names(layout):
    """Return {name of a layer or statistic in the file: key of `_run`'s result}."""
    names = {"logits": "logits"}
    for row in layout.rows:
        separator = "/" if "/" in row.file else "."
        collection, _, path = row.linen.partition("/")
        names[row.file.rpartition(separator)[0]] = path.rpartition("/")[0]
        if collection == "batch_stats":
            names[row.file] = row.linen
    return names


@pytest.mark.parametrize("size", SHAPES)
def test_every_layer_of_a_segmenter_equals_the_golden_activations(network, size):
    name, module, variables, layout = network
    outputs = _run(module, variables, draw_image(SHAPES[size]), train=False)
    _assert_matches(f"{name}_{size}_eval", outputs, _names(layout))


@pytest.mark.parametrize(
    "network", ["resnet50", "resnet50_c4", "resnet50_v15"], indirect=True
)
def test_batch_norm_in_training_has_the_golden_outputs_and_running_statistics(network):
    # The running variance of Flax and Keras is a mean of biased variances, that of
    # PyTorch of unbiased ones; make_golden.py converts it. At stage 5, with 48
    # positions, they differ by a factor of 48/47.
    name, module, variables, layout = network
    outputs = _run(module, variables, draw_image(TRAIN_SHAPE), train=True)
    _assert_matches(f"{name}_96x128_train", outputs, _names(layout))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("size", SHAPES)
def test_the_discriminator_equals_the_golden_activations(size, train):
    module = DCGANDiscriminator(jnp.dtype("float32"))
    b, h, w, _ = SHAPES[size]
    maps = draw(f"probabilities {size}", (b, h, w, 21), "probability")
    shapes = jax.eval_shape(
        lambda k: module.init(k, jnp.zeros((1, 64, 64, 21)), train=False),
        jax.random.key(0),
    )
    variables, names = {}, {}
    torch = {"mean": "running_mean", "var": "running_var", "bias": "bias"}
    for path, leaf in flatten_dict(shapes, sep="/").items():
        collection, layer, kind = path.split("/")
        file = f"{layer}.{torch.get(kind, 'weight')}"
        if kind == "kernel":
            h, w, i, o = leaf.shape
            value = draw(file, (o, i, h, w), kind, fan_in=h * w * i).transpose(
                2, 3, 1, 0
            )
        else:
            value = draw(file, leaf.shape, kind)
        variables[path], names[layer] = value, layer
        if collection == "batch_stats":
            names[file] = path
    outputs = _run(module, unflatten_dict(variables, sep="/"), maps, train=train)
    mode = "train" if train else "eval"
    _assert_matches(f"discriminator_{size}_{mode}", outputs, names)
