"""Exported programs give the results of the package, without the package."""

import functools
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image
from safetensors.numpy import load_file

import tempseg_jax
from tempseg_jax.inference import export, standalone
from tempseg_jax.inference.export import Shape
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.inference.settings import DEFAULT_SETTINGS
from tests.support import ROOT, make_segmenter

RNG = np.random.default_rng(0)
IMAGES = {
    shape: RNG.integers(0, 256, (*shape, 3), np.uint8)
    for shape in ((1, 60, 90), (2, 130, 64))
}

USE_ELSEWHERE = """
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        assert not name.startswith("tempseg_jax"), name

sys.meta_path.insert(0, Forbid())
folder, inputs, outputs = sys.argv[1:]
sys.path.insert(0, folder)
import numpy as np
from use import Exported

exported = Exported(folder)
results = {}
for name, images in np.load(inputs).items():
    results[name] = exported.labels(images)
    results[name + "_p"] = exported.probabilities(images, temperature=2.0)
np.savez(outputs, **results)
"""


@pytest.fixture(scope="module")
def predictor(saved_run):
    return tempseg_jax.load(saved_run)


@pytest.fixture(scope="module")
def folder(predictor, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "model"
    names = export.export(predictor, out, shape=Shape(None, None, None))
    assert names == [
        *("labels.jax_export", "model.json", "probabilities.jax_export"),
        *(
            "requirements.txt",
            "torchvision.safetensors",
            "use.py",
            "weights.safetensors",
        ),
    ]
    return out


@pytest.mark.slow
def test_a_process_without_the_package_gets_the_same_results(
    folder, predictor, tmp_path
):
    np.savez(tmp_path / "in.npz", **{str(len(x)): x for x in IMAGES.values()})
    (tmp_path / "elsewhere.py").write_text(USE_ELSEWHERE)
    arguments = [folder, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(
        [sys.executable, tmp_path / "elsewhere.py", *arguments],
        check=True,
        cwd=tmp_path,
        timeout=200,
    )
    results = np.load(tmp_path / "out.npz")
    for images in IMAGES.values():
        labels, p = results[str(len(images))], results[f"{len(images)}_p"]
        for i, image in enumerate(images):
            np.testing.assert_array_equal(labels[i], predictor(image))
            expected = predictor.probabilities(image, temperature=2.0)
            np.testing.assert_allclose(p[i], expected, atol=1e-5)


def test_what_use_py_imports_is_in_its_requirements_with_the_packages_ranges(folder):
    wanted = (folder / "requirements.txt").read_text().splitlines()
    names = {re.split("[><=]", line)[0] for line in wanted}
    assert names == {"flatbuffers", "jax", "numpy", "pillow", "safetensors"}
    ours = (ROOT / "requirements.txt").read_text().splitlines()
    ranges = {line.split("#")[0].strip() for line in ours}
    (jax_range,) = (x for x in ranges if x.startswith("jax>"))
    # Older versions of JAX than the one that exported cannot be relied on.
    at_least = f"jax>={jax.__version__}"
    ranges.add(f"{at_least},{jax_range.partition(',')[2]}")
    assert {line.split("#")[0].strip() for line in wanted} <= ranges
    assert any(line.startswith(at_least) for line in wanted)


@pytest.mark.installs
@pytest.mark.timeout(600)
def test_the_documented_commands_run_in_an_environment_of_their_own(
    folder, predictor, tmp_path
):
    Image.fromarray(IMAGES[1, 60, 90][0]).save(tmp_path / "photograph.png")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    requirements = ["-r", folder / "requirements.txt"]
    install = [python, "-m", "pip", "install", "--quiet", *requirements]
    subprocess.run(install, check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def use(*arguments):
        return subprocess.run(
            [python, "use.py", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )

    done = use(tmp_path / "photograph.png", tmp_path / "labels.png")
    assert done.returncode == 0, done.stderr
    labels = np.array(Image.open(tmp_path / "labels.png"))
    np.testing.assert_array_equal(labels, predictor(tmp_path / "photograph.png"))
    done = use(tmp_path / "lost.png", tmp_path / "labels.png")
    message = f"error: {tmp_path}/lost.png: there is no such file"
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == message


def test_the_programs_are_for_cpu_and_cuda_and_model_json_describes_them(
    folder, predictor
):
    data = bytearray((folder / "labels.jax_export").read_bytes())
    program = jax.export.deserialize(data)
    assert program.platforms == ("cpu", "cuda")
    model = json.loads((folder / "model.json").read_text())
    assert model["class_names"] == list(predictor.class_names)
    assert model["image"] == ["any", "any", "any", 3]
    assert model["platforms"] == ["cpu", "cuda"]


def test_exporting_again_keeps_other_files_and_leaves_no_temporary_ones(
    predictor, tmp_path
):
    for content in ("first", "second"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                export,
                "_write",
                lambda *args, shape, content=content: [
                    (args[2] / name).write_text(content)
                    for name in ("labels.jax_export", "model.json", "use.py")
                ],
            )
            names = export.export(
                predictor, tmp_path / "model", shape=Shape(1, None, None)
            )
        (tmp_path / "model" / "model.onnx").write_text("kept")
    assert names == ["labels.jax_export", "model.json", "use.py"]
    assert (tmp_path / "model" / "model.onnx").read_text() == "kept"
    assert (tmp_path / "model" / "use.py").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_torchvision_file_holds_the_same_weights(folder, predictor):
    tensors = load_file(folder / "torchvision.safetensors")
    kernel = predictor.variables["params"]["backbone"]["block1"]["conv1"]["kernel"]
    np.testing.assert_array_equal(
        tensors["features.0.weight"], np.asarray(kernel).transpose(3, 2, 0, 1)
    )


def test_resnet_is_exported_for_any_size_too():
    segmenter = make_segmenter("resnet50", num_classes=3)
    init = functools.partial(segmenter.init, train=False)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    model = {
        "name": "resnet50",
        "dataset": "tiny",
        "class_names": list("abc"),
        "palette": np.zeros((3, 3), int).tolist(),
        "temperature_g": 1.0,
    }
    predictor = Predictor(
        segmenter, variables, model=model, settings=DEFAULT_SETTINGS, step=1
    )
    program = jax.jit(export.programs(predictor)["labels"])
    any_size = jax.ShapeDtypeStruct(
        (*Shape(None, None, None).dimensions(), 3), jnp.uint8
    )
    weights = flatten_dict(variables, sep="/")
    exported = jax.export.export(program, platforms=export.PLATFORMS)(weights, any_size)
    assert str(exported.out_avals[0]) == "uint8[b,h,w]"


def test_scales_need_a_fixed_size_and_windows_cannot_be_exported(saved_run, tmp_path):
    scaled = tempseg_jax.load(saved_run, scales=(0.5, 1.0))
    with pytest.raises(ValueError, match="pass --size"):
        export.export(scaled, tmp_path / "x", shape=Shape(1, None, None))
    export.export(scaled, tmp_path / "x", shape=Shape(1, 64, 64))
    image = IMAGES[1, 60, 90][:, :, :64]
    image = np.concatenate([image, image[:, :4]], axis=1)
    labels = standalone.Exported(tmp_path / "x").labels(image)
    np.testing.assert_array_equal(labels[0], scaled(image[0]))
    with pytest.raises(ValueError, match="window"):
        windows = tempseg_jax.load(saved_run, window=64)
        export.export(windows, tmp_path / "y", shape=Shape(1, 64, 64))
    assert not (tmp_path / "y").exists()


def test_onnx_gives_the_same_probabilities_or_says_what_is_not_installed(
    predictor, tmp_path
):
    from tempseg_jax.inference.export_onnx import TOLERANCE, export_onnx

    path = tmp_path / "model.onnx"
    try:
        import jax2onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        with pytest.raises(ValueError, match="which is not installed"):
            export_onnx(predictor, path, shape=Shape(1, 60, 90))
        pytest.skip("no jax2onnx and onnxruntime: pip install -e '.[onnx]'")
    assert export_onnx(predictor, path, shape=Shape(1, 60, 90)) < TOLERANCE
    session = onnxruntime.InferenceSession(str(path))
    image = IMAGES[1, 60, 90]
    (p,) = session.run(None, {session.get_inputs()[0].name: image})
    np.testing.assert_allclose(p[0], predictor.probabilities(image[0]), atol=1e-4)
    assert {path.name for path in tmp_path.iterdir()} <= {
        "model.onnx",
        path.name + ".data",
    }
