"""Converting PyTorch checkpoints to safetensors with scripts/convert_weights.py."""

import importlib.util
import subprocess
import sys

import pytest

from tempseg_jax.models.preprocessing import CAFFE
from tempseg_jax.models.weights.catalog import preprocessing_of
from tempseg_jax.models.weights.layouts import TORCHVISION_RESNET50
from tempseg_jax.models.weights.pretrained import load_pretrained
from tests.models.weights.shapes import file_shapes, variable_shapes
from tests.support import ROOT


def _convert(source, target, *options):
    script = ROOT / "scripts/convert_weights.py"
    command = [sys.executable, script, source, target, *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_converting_without_torch_is_an_error_that_names_it(tmp_path):
    if importlib.util.find_spec("torch"):
        pytest.skip("torch is installed")
    (tmp_path / "w.pth").write_bytes(b"")
    result = _convert(tmp_path / "w.pth", tmp_path / "w.safetensors")
    assert result.returncode == 1
    assert "torch is not installed; run this script" in result.stderr
    assert not (tmp_path / "w.safetensors").exists()


def test_a_pytorch_checkpoint_converts_with_its_preprocessing(tmp_path):
    torch = pytest.importorskip("torch", reason="converting needs torch")
    shapes = file_shapes(TORCHVISION_RESNET50)
    state = {f"module.{name}": torch.full(s, 0.5) for name, s in shapes.items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    path = tmp_path / "w.safetensors"
    result = _convert(tmp_path / "w.pth", path, "--preprocessing=caffe")
    assert result.returncode == 0, result.stderr
    assert preprocessing_of(str(path)) == CAFFE
    variables, _ = load_pretrained(
        variable_shapes("resnet50_v15"),
        str(path),
        segmenter_name="resnet50_v15",
        missing=(),
    )
    assert variables["params"]["conv1"]["kernel"].max() == 0.5
