import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import tempseg_jax
from tempseg_jax.models import SEGMENTERS

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (70, 100, 3), np.uint8)


@pytest.fixture(scope="module")
def predictor(saved_run):
    return tempseg_jax.load(saved_run)


def test_labels_have_the_images_size_from_an_array_a_pil_image_and_a_file(
    predictor, tmp_path
):
    labels = predictor(IMAGE)
    assert labels.shape == IMAGE.shape[:2] and labels.dtype == np.uint8
    assert len(np.unique(labels)) > 1
    picture = Image.fromarray(IMAGE)
    picture.save(tmp_path / "x.png")
    for same in (picture, tmp_path / "x.png", str(tmp_path / "x.png")):
        np.testing.assert_array_equal(predictor(same), labels)


def test_the_checkpoint_stores_the_dataset_and_its_classes(predictor):
    assert predictor.dataset == "scenes" and predictor.step == 7
    assert predictor.palette.shape == (len(predictor.class_names), 3)
    assert predictor.temperature_g == 0.5


def test_many_images_of_different_sizes_keep_their_order(saved_run, tmp_path):
    predictor = tempseg_jax.load(saved_run)
    shapes = [(70, 100), (200, 40), (128, 128), (64, 64), (300, 20), (1, 1)] * 3
    images = [RNG.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    Image.fromarray(images[0]).save(tmp_path / "0.png")
    labels = list(
        predictor.predict_many([tmp_path / "0.png", *images[1:]], batch_size=2)
    )
    assert len(labels) == len(images)
    for image, label in zip(images, labels, strict=True):
        np.testing.assert_array_equal(label, predictor(image))
    with pytest.raises(ValueError, match="lost.png: there is no such file"):
        list(predictor.predict_many([images[0], tmp_path / "lost.png"]))
    with pytest.raises(ValueError, match="batch_size: 0 is below 1"):
        predictor.predict_many(images, batch_size=0)


def test_many_images_do_not_wait_for_a_rare_canvas(saved_run):
    predictor = tempseg_jax.load(saved_run)
    produced = 0

    def images():
        nonlocal produced
        for i in range(40):
            produced += 1
            yield np.full((8, 8 + 128 * (i == 0), 3), i, np.uint8)

    next(predictor.predict_many(images(), batch_size=2))
    assert produced <= 2 * 8 + 4  # the first image's canvas occurs only once


@pytest.mark.parametrize("window", [None, 64])
def test_temperature_changes_probabilities_but_no_label(saved_run, window):
    predictor = tempseg_jax.load(saved_run, window=window)
    labels = predictor(IMAGE)
    p = {t: predictor.probabilities(IMAGE, temperature=t) for t in (0.5, 1.0, 2.0)}
    for temperature, tempered in p.items():
        assert tempered.shape == (*labels.shape, len(predictor.class_names))
        np.testing.assert_allclose(tempered.sum(axis=-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(tempered.argmax(axis=-1), labels)
        power = p[1.0] ** (1 / temperature)
        np.testing.assert_allclose(
            tempered, power / power.sum(axis=-1, keepdims=True), atol=1e-5
        )
    with pytest.raises(ValueError, match="temperature: 0"):
        predictor.probabilities(IMAGE, temperature=0.0)


def test_one_window_equals_the_whole_image(saved_run, predictor):
    image = IMAGE[:64, :64]
    padded = np.full((128, 128, 3), 0, np.uint8)
    padded[:64, :64] = image
    alone = tempseg_jax.load(saved_run, window=128).probabilities(padded)
    np.testing.assert_allclose(alone, predictor.probabilities(padded), atol=1e-5)


def test_a_workdir_needs_only_its_checkpoints(saved_run, tmp_path):
    shutil.copytree(saved_run / "checkpoints", tmp_path / "run" / "checkpoints")
    assert tempseg_jax.load(tmp_path / "run", "latest")(IMAGE).shape == (70, 100)


def test_missing_checkpoints_and_precisions_are_named(saved_run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint 'best'"):
        tempseg_jax.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint 5"):
        tempseg_jax.load(saved_run, 5)
    with pytest.raises(ValueError, match="precision: 'half'"):
        tempseg_jax.load(saved_run, precision="half")


def test_a_checkpoint_of_an_unknown_architecture_is_named(saved_run, monkeypatch):
    monkeypatch.delitem(SEGMENTERS, "fcn8s")
    message = f"^{saved_run}/checkpoints/7: model.name 'fcn8s' is not one of mobilenet"
    with pytest.raises(ValueError, match=message):
        tempseg_jax.load(saved_run)


def test_importing_is_fast_and_loading_needs_no_dataset_library(saved_run):
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
