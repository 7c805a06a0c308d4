import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import tempseg_jax

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (70, 100, 3), np.uint8)


@pytest.fixture(scope="module")
def segment(saved_run):
    return tempseg_jax.load(saved_run)


def test_labels_have_the_images_size_from_array_picture_and_file(segment, tmp_path):
    labels = segment(IMAGE)
    assert labels.shape == IMAGE.shape[:2] and labels.dtype == np.uint8
    assert len(np.unique(labels)) > 1
    picture = Image.fromarray(IMAGE)
    picture.save(tmp_path / "x.png")
    for same in (picture, tmp_path / "x.png", str(tmp_path / "x.png")):
        np.testing.assert_array_equal(segment(same), labels)


def test_a_checkpoint_says_whose_classes_it_knows(segment):
    assert segment.dataset == "scenes" and segment.step == 7
    assert segment.palette.shape == (len(segment.class_names), 3)
    assert segment.temperature_g == 0.5


@pytest.mark.parametrize("window", [None, 64])
def test_temperature_moves_probabilities_and_no_label(saved_run, window):
    segment = tempseg_jax.load(saved_run, window=window)
    labels = segment(IMAGE)
    p = {t: segment.probabilities(IMAGE, temperature=t) for t in (0.5, 1.0, 2.0)}
    for temperature, found in p.items():
        assert found.shape == (*labels.shape, len(segment.class_names))
        np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(found.argmax(axis=-1), labels)
        power = p[1.0] ** (1 / temperature)
        np.testing.assert_allclose(
            found, power / power.sum(axis=-1, keepdims=True), atol=1e-5
        )
    with pytest.raises(ValueError, match="temperature: 0"):
        segment.probabilities(IMAGE, temperature=0.0)


def test_one_window_is_the_whole_image(saved_run, segment):
    image = IMAGE[:64, :64]
    padded = np.full((128, 128, 3), 0, np.uint8)
    padded[:64, :64] = image
    alone = tempseg_jax.load(saved_run, window=128).probabilities(padded)
    np.testing.assert_allclose(alone, segment.probabilities(padded), atol=1e-5)


def test_the_workdir_needs_its_checkpoints_alone(saved_run, tmp_path):
    shutil.copytree(saved_run / "checkpoints", tmp_path / "run" / "checkpoints")
    assert tempseg_jax.load(tmp_path / "run", "latest")(IMAGE).shape == (70, 100)


def test_what_is_not_there_is_named(saved_run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint 'best'"):
        tempseg_jax.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint 5"):
        tempseg_jax.load(saved_run, 5)
    with pytest.raises(ValueError, match="precision: 'half'"):
        tempseg_jax.load(saved_run, precision="half")


def test_importing_is_cheap_and_loading_needs_no_dataset_library(saved_run):
    code = f"""
import sys
import tempseg_jax
assert "jax" not in sys.modules
tempseg_jax.load({str(saved_run)!r})
slow = {{"grain", "tensorflow_datasets", "matplotlib", "h5py"}} & set(sys.modules)
assert not slow, slow
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="lode"):
        tempseg_jax.lode  # noqa: B018
