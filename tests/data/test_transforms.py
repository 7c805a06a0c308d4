import cv2
import numpy as np
import pytest

from tempseg_jax.data.transforms import (
    PAD_COLOR,
    PhotometricDistortion,
    RandomFlip,
    RandomScaleCrop,
)
from tempseg_jax.types import IGNORE_LABEL


def crop(element, rng, *, size, min_scale=1.0, max_scale=1.0, cat_max_ratio=1.0):
    out = {
        "image": np.empty((size, size, 3), np.uint8),
        "label": np.empty((size, size), np.uint8),
    }
    RandomScaleCrop(min_scale, max_scale, cat_max_ratio)(element, rng, out=out)
    return out


def copied(element):
    return {key: array.copy() for key, array in element.items()}


def coordinates(height, width):
    """Return an image whose color is its row and column, and a label that agrees."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return {"image": np.stack([y, x, 0 * x], axis=-1), "label": x // 8}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_at_scale_one_the_crop_is_a_window_of_the_input(rng):
    element = coordinates(60, 80)
    for _ in range(20):
        out = crop(element, rng, size=32)
        y, x = out["image"][0, 0, :2]
        np.testing.assert_array_equal(
            out["image"], element["image"][y : y + 32, x : x + 32]
        )
        np.testing.assert_array_equal(
            out["label"], element["label"][y : y + 32, x : x + 32]
        )


def test_every_window_can_be_drawn(rng):
    element = coordinates(34, 35)
    corners = {
        tuple(crop(element, rng, size=32)["image"][0, 0, :2]) for _ in range(200)
    }
    assert corners == {(y, x) for y in range(3) for x in range(4)}


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.3, 2.0])
def test_image_and_label_stay_aligned_to_the_pixel_at_any_scale(rng, scale):
    image = np.zeros((90, 120, 3), np.uint8)
    image[:, 60:] = 255
    element = {"image": image, "label": (image[..., 0] > 0).astype(np.uint8)}
    for _ in range(20):
        out = crop(element, rng, size=40, min_scale=scale, max_scale=scale)
        # Bilinear interpolation crosses 0.5 exactly where the nearest pixel changes.
        np.testing.assert_array_equal(out["image"][..., 0] > 127, out["label"] == 1)


@pytest.mark.parametrize(("cat_max_ratio", "tries"), [(1.0, 1), (0.9, 1), (0.01, 10)])
def test_each_drawn_window_of_the_label_is_read_once(rng, cat_max_ratio, tries):
    """Reading is most of the work if the image is stored as tiles."""

    class Stored:
        def __init__(self, array):
            self.array, self.shape, self.reads = array, array.shape, 0

        def __getitem__(self, window):
            self.reads += 1
            return self.array[window]

    element = {k: Stored(x) for k, x in coordinates(60, 80).items()}
    crop(element, rng, size=32, cat_max_ratio=cat_max_ratio)
    assert element["label"].reads == tries and element["image"].reads == 1


def test_the_crop_equals_a_crop_of_the_resized_image(rng):
    noise = cv2.GaussianBlur(rng.integers(0, 256, (96, 128, 3), np.uint8), (0, 0), 2)
    element = {"image": noise, "label": np.zeros((96, 128), np.uint8)}
    whole = cv2.resize(noise, (256, 192)).astype(int)
    out = crop(element, rng, size=32, min_scale=2.0, max_scale=2.0)["image"]
    inner = out[1:-1, 1:-1].astype(int)  # the border pixels lack neighbors
    errors = [
        np.abs(whole[y + 1 : y + 31, x + 1 : x + 31] - inner).max()
        for y in range(0, 161, 2)
        for x in range(0, 225, 2)
    ]
    assert min(errors) <= 1


def test_scales_are_uniform_between_the_limits(rng):
    stripes = np.arange(400, dtype=np.uint16) // 2
    label = np.broadcast_to(stripes.astype(np.uint8), (400, 400)).copy()
    element = {"image": np.zeros((400, 400, 3), np.uint8), "label": label}
    spans = []
    for _ in range(300):
        out = crop(element, rng, size=100, min_scale=0.5, max_scale=2.0)
        row = out["label"][0].astype(int)
        spans.append(100 / (2 * (row[-1] - row[0] + 1)))
    assert 0.49 < min(spans) < 0.55 and 1.85 < max(spans) < 2.1
    assert abs(np.mean(spans) - 1.25) < 0.08


def test_a_small_image_is_padded_with_void(rng):
    element = coordinates(20, 30)
    out = crop(element, rng, size=48, min_scale=1.5, max_scale=1.5)
    whole = cv2.resize(element["image"], (45, 30))
    np.testing.assert_array_equal(out["image"][:30, :45], whole)
    assert (out["label"][:30, :45] != IGNORE_LABEL).all()
    assert (out["label"][30:] == IGNORE_LABEL).all()
    assert (out["label"][:, 45:] == IGNORE_LABEL).all()
    assert (out["image"][30:] == PAD_COLOR).all()
    assert (out["image"][:, 45:] == PAD_COLOR).all()


def test_cat_max_ratio_avoids_crops_of_a_single_class(rng):
    label = np.zeros((64, 64), np.uint8)
    label[:, 48:] = 1
    element = {"image": np.zeros((64, 64, 3), np.uint8), "label": label}

    def single(ratio):
        crops = [
            crop(element, rng, size=16, cat_max_ratio=ratio)["label"]
            for _ in range(200)
        ]
        return np.mean([len(np.unique(c)) == 1 for c in crops])

    assert single(1.0) > 0.5
    assert single(0.75) < 0.15


def test_half_of_the_examples_are_flipped(rng):
    mirrored = 0
    for _ in range(200):
        example = coordinates(5, 16)
        RandomFlip()(example, rng)
        np.testing.assert_array_equal(example["image"][..., 1] // 8, example["label"])
        row = list(example["image"][2, :, 1])
        assert row in (list(range(16)), list(range(16))[::-1])
        mirrored += row[0] == 15
    assert 70 < mirrored < 130


def test_photometric_distortion_changes_colors_only(rng):
    element = coordinates(32, 32)
    changed = 0
    for _ in range(30):
        example = copied(element)
        PhotometricDistortion()(example, rng)
        np.testing.assert_array_equal(example["label"], element["label"])
        changed += not np.array_equal(example["image"], element["image"])
    assert 20 < changed < 30


def test_photometric_distortion_keeps_gray_gray(rng):
    shades = set()
    for _ in range(60):
        gray = {"image": np.full((4, 4, 3), 100, np.uint8), "label": None}
        PhotometricDistortion()(gray, rng)
        pixel = gray["image"][0, 0].astype(int)
        assert np.ptp(pixel) <= 1
        shades.add(pixel[0])
    assert 18 <= min(shades) < 60 and 140 < max(shades) <= 182


def test_the_source_of_a_crop_is_not_modified(rng):
    element = coordinates(24, 24)
    for array in element.values():
        array.flags.writeable = False  # it may be cached
    for _ in range(10):
        crop(element, rng, size=16, max_scale=2.0, cat_max_ratio=0.75)
