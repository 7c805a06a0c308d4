"""Loading weight files, and errors about unsuitable files."""

import ast
import functools

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION
from tempseg_jax.models.weights import catalog
from tempseg_jax.models.weights.catalog import PRETRAINED, preprocessing_of
from tempseg_jax.models.weights.layouts import (
    DENSE_HWC,
    KERAS_RESNET50,
    KERAS_VGG16,
    LAYOUTS,
    LINEAR_CHW,
    TORCHVISION_RESNET50,
)
from tempseg_jax.models.weights.pretrained import check_fits, load_pretrained
from tempseg_jax.models.weights.sources import LocalFile
from tests.models.weights.shapes import file_shapes, head_of, variable_shapes
from tests.support import ROOT, TEST_DATA

PARTIAL = TEST_DATA / "weights/resnet50_keras_imagenet_notop_partial.h5"


def _write_keras(path, shapes, *, value=0.25, pattern="{layer}/{layer}/{role}:0"):
    """Write a file of constant tensors, each stored by HDF5 as one number."""
    with h5py.File(path, "w") as file:
        for name, shape in shapes.items():
            layer, role = name.split("/")
            at = pattern.format(layer=layer, role=role)
            file.create_dataset(at, shape, np.float32, fillvalue=value)
    return str(path)


@pytest.fixture(scope="module")
def keras_shapes():
    return file_shapes(KERAS_RESNET50)


def _load_resnet50(path, *, missing=()):
    variables = variable_shapes("resnet50")
    return load_pretrained(
        variables, str(path), segmenter_name="resnet50", missing=missing
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.title)
def test_a_layout_has_one_row_for_every_variable_except_the_heads(layout):
    flat = flatten_dict(variable_shapes(layout.segmenter, **head_of(layout)), sep="/")
    heads = [n for n in flat if n.split("/")[1].startswith(("score", "upsample8"))]
    rows = [row.linen for row in layout.rows]
    assert sorted(rows + heads) == sorted(flat)
    assert len({row.file for row in layout.rows}) == len(rows)
    assert layout.signature <= {row.file for row in layout.rows}
    assert layout.first_kernel == flat[layout.rows[0].linen].shape


def test_the_preprocessing_of_a_source_is_known_without_a_download(monkeypatch):
    def refuse(self):
        raise AssertionError("a file was downloaded")

    monkeypatch.setattr(catalog.HubFile, "fetch", refuse)
    monkeypatch.setattr(catalog.KerasFile, "fetch", refuse)
    assert (
        preprocessing_of("keras_resnet50") == preprocessing_of("keras_vgg16") == CAFFE
    )
    assert preprocessing_of("resnet50.tv_in1k") == TORCHVISION
    assert preprocessing_of("vgg16.tv_in1k") == TORCHVISION
    assert preprocessing_of("") == preprocessing_of(None) == TORCHVISION
    for source in PRETRAINED.values():
        assert source.preprocessing == source.layout.preprocessing


def test_the_two_preprocessings_are_the_published_ones():
    image = jnp.array([[[[255, 0, 10]]]], jnp.uint8)
    np.testing.assert_allclose(
        CAFFE(image)[0, 0, 0], [10 - 103.939, 0 - 116.779, 255 - 123.68], rtol=1e-6
    )
    scaled = np.array([255, 0, 10]) / 255
    expected = (scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(TORCHVISION(image)[0, 0, 0], expected, rtol=1e-5)


def test_only_the_networks_apply_or_define_a_preprocessing():
    """Training, evaluation, prediction and export therefore cannot differ in it."""
    numbers = {103.939, 116.779, 123.68, 0.485, 0.456, 0.406, 0.229, 0.224, 0.225}
    constants = ("CAFFE", "TORCHVISION", "TORCHVISION_MOBILENET", "PREPROCESSINGS")
    uses = {"numbers": set(), "constants": set(), "calls": set(), "normalizes": set()}
    folders = ("tempseg_jax", "scripts", "configs")
    files = (p for folder in folders for p in (ROOT / folder).rglob("*.py"))
    # The networks in PyTorch, which training is compared with, have their own.
    for path in (p for p in files if "peers" not in p.parts):
        file = path.relative_to(ROOT).as_posix().removeprefix("tempseg_jax/models/")
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "id", getattr(node, "attr", None))
            called = getattr(node, "func", None)
            called = getattr(called, "id", getattr(called, "attr", None))
            if isinstance(node, ast.Constant) and node.value in numbers:
                uses["numbers"].add(file)
            # Benchmarks use random weights, for which any preprocessing is right.
            benchmark = {"benchmark_parts", "gpu_parts"} & set(path.parts)
            if name in constants and not benchmark:
                uses["constants"].add(file)
            if called == "preprocessing":
                uses["calls"].add(file)
            if called == "normalize_and_pad":
                uses["normalizes"].add(file)
    assert uses == {
        "numbers": {"preprocessing.py"},
        "constants": {
            "preprocessing.py",
            "weights/layouts/__init__.py",
            "weights/layouts/mobilenet.py",
            "weights/layouts/resnet.py",
            "weights/layouts/segmentation.py",
            "weights/layouts/vgg.py",
            "weights/export.py",
            "weights/catalog.py",
        },
        "calls": {"layers.py"},
        "normalizes": {"fcn.py", "segmenter.py", "scripts/fault_parts/tiny.py"},
    }


def test_fully_connected_kernels_become_convolutions_over_the_whole_map():
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 2, 3, 5)).astype(np.float32)
    rows = random.normal(size=(7, 30)).astype(np.float32)  # as PyTorch: out, in
    for arrangement, stored, flattened in (
        (LINEAR_CHW, rows, x.transpose(0, 3, 1, 2).reshape(1, -1)),
        (DENSE_HWC, rows.T, x.reshape(1, -1)),
    ):
        shape = (2, 3, 5, 7)
        assert arrangement.file_shape(shape) == stored.shape
        kernel = arrangement.from_file(stored, shape)
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        np.testing.assert_allclose(y[0, 0, 0], (flattened @ rows.T)[0], rtol=1e-4)
        np.testing.assert_array_equal(arrangement.to_file(kernel), stored)


def test_the_report_lists_every_tensor(tmp_path, keras_shapes):
    shapes = {
        **keras_shapes,
        "predictions/kernel": (2048, 10),
        "predictions/bias": (10,),
    }
    path = _write_keras(tmp_path / "full.h5", shapes)
    variables, report = _load_resnet50(path)
    flat = flatten_dict(variables, sep="/")
    assert set(report.fresh) == {"params/score/kernel", "params/score/bias"}
    assert set(report.unused) == {"predictions/kernel", "predictions/bias"}
    assert sorted(report.loaded + report.fresh) == sorted(flat)
    for name in report.loaded:
        assert flat[name].dtype == np.float32
        assert flat[name].max() == flat[name].min() == 0.25
    table = str(report)
    assert (
        "full.h5 (Keras ResNet-50; input BGR minus (103.94, 116.78, 123.68))" in table
    )
    assert "freshly initialized: score\n" in table
    assert "unused in the file: predictions/bias, predictions/kernel" in table
    assert [line.split() for line in table.splitlines() if "total" in line] == [
        ["total", "318", "2"]
    ]


def test_a_network_without_stage_5_leaves_its_tensors_unused(tmp_path, keras_shapes):
    path = _write_keras(tmp_path / "full.h5", keras_shapes)
    variables, report = load_pretrained(
        variable_shapes("resnet50_c4"), path, segmenter_name="resnet50_c4", missing=()
    )
    assert len(report.loaded) == 258
    assert set(report.fresh) == {"params/score/kernel", "params/score/bias"}
    assert set(report.unused) == {n for n in keras_shapes if n.startswith("conv5_")}
    assert variables["params"]["conv1"]["kernel"].max() == 0.25
    blocks = "conv5_block1_* (24), conv5_block2_* (18), conv5_block3_* (18)"
    assert str(report).endswith(f"unused in the file: {blocks}")


def test_a_network_without_stage_5_needs_all_other_tensors(tmp_path, keras_shapes):
    absent = "conv4_block6_3_bn/beta"
    shapes = {n: s for n, s in keras_shapes.items() if n != absent and n[4] != "5"}
    path = _write_keras(tmp_path / "holed.h5", shapes)
    with pytest.raises(ValueError, match=f"does not have the tensors {absent} of"):
        load_pretrained(
            variable_shapes("resnet50_c4"),
            path,
            segmenter_name="resnet50_c4",
            missing=(),
        )


def test_vgg16_loads_with_the_tensor_names_of_keras_1(tmp_path):
    shapes = {
        name.replace("kernel", "W_1").replace("bias", "b_1"): shape
        for name, shape in file_shapes(KERAS_VGG16).items()
    }
    pattern = "{layer}/{layer}_{role}:0"
    path = _write_keras(tmp_path / "vgg.h5", shapes, pattern=pattern)
    variables, report = load_pretrained(
        variable_shapes("fcn8s"), path, segmenter_name="fcn8s", missing=()
    )
    assert preprocessing_of(path) == CAFFE
    assert variables["params"]["backbone"]["fc6"]["kernel"].shape == (7, 7, 512, 4096)
    assert {n.split("/")[1] for n in report.fresh} == {
        "score_fc7",
        "score_pool4",
        "score_pool3",
        "upsample8",
    }


def test_weights_load_from_a_whole_saved_keras_model(tmp_path, keras_shapes):
    pattern = "model_weights/{layer}/{layer}/{role}:0"
    path = _write_keras(tmp_path / "model.h5", keras_shapes, pattern=pattern)
    with h5py.File(path, "a") as file:
        file["optimizer_weights/iteration:0"] = 3
    assert len(_load_resnet50(path)[1].loaded) == 318


def test_a_missing_tensor_is_an_error_that_names_it(tmp_path, keras_shapes):
    absent = "conv3_block2_2_conv/bias"
    shapes = {name: s for name, s in keras_shapes.items() if name != absent}
    path = _write_keras(tmp_path / "holed.h5", shapes)
    with pytest.raises(
        ValueError,
        match=f"holed.h5 does not have the tensors {absent} of.*pretrained_missing",
    ):
        _load_resnet50(path)
    with pytest.raises(ValueError, match=f"does not have the tensors {absent} of"):
        check_fits(
            *(variable_shapes("resnet50"), str(path)),
            segmenter_name="resnet50",
            missing=(),
        )
    with pytest.raises(ValueError, match=f"does not have the tensors {absent} of"):
        _load_resnet50(path, missing=("conv5", "conv3_block1"))
    report = _load_resnet50(path, missing=("conv3_block2",))[1]
    assert "params/stage3_block2/conv2/bias" in report.fresh
    assert "params/stage3_block2/conv2/kernel" in report.loaded


def test_a_prefix_that_no_tensor_name_has_is_an_error(tmp_path, keras_shapes):
    path = _write_keras(tmp_path / "full.h5", keras_shapes)
    with pytest.raises(ValueError, match="pretrained_missing has 'stage5'"):
        _load_resnet50(path, missing=("stage5",))


def test_a_tensor_of_another_shape_is_an_error_with_both_shapes(tmp_path, keras_shapes):
    shapes = {**keras_shapes, "conv2_block1_2_conv/kernel": (3, 3, 64, 32)}
    path = _write_keras(tmp_path / "bad.h5", shapes)
    with pytest.raises(
        ValueError, match=r"conv2_block1_2_conv/kernel .*64, 32.*64, 64"
    ):
        _load_resnet50(path)


def test_weights_of_a_deeper_network_of_the_same_family_are_an_error(
    tmp_path, keras_shapes
):
    shapes = {**keras_shapes, "conv4_block7_1_conv/kernel": (1, 1, 1024, 256)}
    path = _write_keras(tmp_path / "resnet101.h5", shapes)
    with pytest.raises(ValueError, match="conv4_block7_1_conv/kernel.*another network"):
        _load_resnet50(path)


def test_values_that_are_not_finite_are_an_error(tmp_path, keras_shapes):
    path = _write_keras(tmp_path / "nan.h5", keras_shapes, value=np.nan)
    with pytest.raises(ValueError, match=r"nan.h5: conv1_conv/kernel .* not finite"):
        _load_resnet50(path)


@pytest.mark.parametrize(
    ("source", "segmenter", "fits"),
    [
        ("keras_resnet50", "resnet50_v15", "'resnet50' or 'resnet50_c4'"),
        ("resnet50.tv_in1k", "resnet50", "'resnet50_v15'"),
        ("resnet50.tv_in1k", "resnet50_c4", "'resnet50_v15'"),
        ("vgg16.tv_in1k", "resnet50", "'fcn8s'"),
    ],
)
def test_weights_of_another_architecture_are_an_error(source, segmenter, fits):
    with pytest.raises(ValueError, match=f"fits model.name={fits}, not '{segmenter}'"):
        load_pretrained(
            variable_shapes(segmenter), source, segmenter_name=segmenter, missing=()
        )


def test_a_narrow_network_is_an_error_before_any_download():
    shapes = r"\(7, 7, 3, 64\), but this network's has shape \(7, 7, 3, 32\)"
    with pytest.raises(ValueError, match=f"{shapes}; set model.width=1 or model.pre"):
        load_pretrained(
            variable_shapes("resnet50", width=0.5),
            "keras_resnet50",
            segmenter_name="resnet50",
            missing=(),
        )


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_the_published_width_is_that_of_the_layout(
    tmp_path, keras_shapes, monkeypatch, width
):
    # A layout of a network with 32 channels in its first convolution.
    layout = KERAS_RESNET50._replace(first_kernel=(7, 7, 3, 32))
    source = catalog.Source(LocalFile(tmp_path / "w.h5"), layout, CAFFE)
    monkeypatch.setitem(PRETRAINED, "narrow", source)
    variables = variable_shapes("resnet50", width=width)
    flat = flatten_dict(variables, sep="/")
    shapes = {row.file: flat[row.linen].shape for row in layout.rows}
    _write_keras(tmp_path / "w.h5", shapes)
    load = functools.partial(
        load_pretrained, variables, "narrow", segmenter_name="resnet50", missing=()
    )
    if width == 0.5:
        assert len(load()[1].loaded) == len(layout.rows)
    else:
        with pytest.raises(ValueError, match=r"shape \(7, 7, 3, 32\).*3, 64\); set"):
            load()


@pytest.mark.parametrize(
    ("source", "hint"),
    [("vgg16.tv_in1", "did you mean 'vgg16.tv_in1k'"), ("gone.h5", "known: vgg16")],
)
def test_an_unknown_source_is_an_error_that_lists_the_known_ones(source, hint):
    with pytest.raises(ValueError, match=hint):
        preprocessing_of(source)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".pkl"])
def test_a_pickle_is_an_error_with_the_command_that_converts_it(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    command = f"convert_weights.py {path} w.safetensors"
    with pytest.raises(ValueError, match=command):
        preprocessing_of(str(path))


@pytest.mark.parametrize("name", ["w.safetensors", "w.h5", "w.npz"])
def test_a_damaged_file_or_one_of_another_format_is_an_error(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x80\x02 not weights")
    with pytest.raises(ValueError, match=f"{name}.*(damaged|\\.safetensors and Keras)"):
        preprocessing_of(str(path))


def test_a_file_of_no_known_layout_is_an_error_with_its_tensor_names(tmp_path):
    save_file({"stem.weight": np.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"\(stem.weight, .*torchvision VGG-16"):
        preprocessing_of(str(tmp_path / "w.safetensors"))


def test_half_precision_files_become_float32(tmp_path):
    shapes = file_shapes(TORCHVISION_RESNET50)
    tensors = {name: np.full(shape, 0.5, np.float16) for name, shape in shapes.items()}
    tensors["bn1.num_batches_tracked"] = np.array(7)
    save_file(tensors, tmp_path / "half.safetensors")
    variables, report = load_pretrained(
        variable_shapes("resnet50_v15"),
        str(tmp_path / "half.safetensors"),
        segmenter_name="resnet50_v15",
        missing=(),
    )
    assert variables["params"]["conv1"]["kernel"].dtype == np.float32
    assert report.unused == ("bn1.num_batches_tracked",)


def test_an_unknown_preprocessing_in_the_metadata_is_an_error(tmp_path):
    tensors = {name: np.zeros(1) for name in TORCHVISION_RESNET50.signature}
    path = tmp_path / "w.safetensors"
    save_file(tensors, path, {"preprocessing": "inception"})
    message = "w.safetensors: the metadata has preprocessing='inception'"
    with pytest.raises(ValueError, match=message):
        preprocessing_of(str(path))


def test_the_partial_real_file_loads_only_with_pretrained_missing(tmp_path):
    if not PARTIAL.exists():
        pytest.skip(f"{PARTIAL.name} is not in the test data")
    with pytest.raises(
        ValueError, match="not have the tensors conv5_block1_0_conv/kernel"
    ):
        _load_resnet50(PARTIAL)
    variables, report = _load_resnet50(PARTIAL, missing=("conv5",))
    fresh = {name.split("/", 1)[1].rpartition("/")[0] for name in report.fresh}
    assert fresh == {
        "score",
        *(f"stage5_block1/conv{i}" for i in (0, 2, 3)),
        *(f"stage5_block{j}/conv{i}" for j in (2, 3) for i in (1, 2, 3)),
    }
    assert len(report.loaded) == 300
    with h5py.File(PARTIAL) as file:
        kernel = file["conv4_block6_2_conv/conv4_block6_2_conv/kernel:0"][()]
    loaded = variables["params"]["stage4_block6"]["conv2"]["kernel"]
    np.testing.assert_array_equal(loaded, kernel)
