import hashlib

import numpy as np

from tempseg_jax.data import codec
from tempseg_jax.data.sources import scenes
from tempseg_jax.types import IGNORE_LABEL


def test_the_pixels_are_the_same_on_every_machine():
    digest = hashlib.sha256()
    for stream in range(3):
        for index in range(16):  # all shapes, also across the borders of the image
            for pixels in scenes.scene((stream, index), size=scenes.SIZE):
                digest.update(pixels.tobytes())
    assert digest.hexdigest()[:16] == "a4aeb51a1b531f08"


def test_scenes_differ_and_splits_do_not_overlap():
    pictures = {
        scenes.scene((stream, i), size=64)[0].tobytes()
        for stream in range(2)
        for i in range(8)
    }
    assert len(pictures) == 16


def test_every_class_is_common_and_void_is_rare():
    labels = [scenes.scene((1, i), size=scenes.SIZE)[1] for i in range(24)]
    share = np.bincount(np.ravel(labels), minlength=256) / np.size(labels)
    assert (share[: len(scenes.CLASSES)] > 0.01).all()
    assert share[len(scenes.CLASSES) : IGNORE_LABEL].sum() == 0
    assert 0.02 < share[IGNORE_LABEL] < 0.15


def test_every_void_pixel_is_within_two_pixels_of_one_that_is_not():
    _, label = scenes.scene((0, 1), size=scenes.SIZE)
    for y, x in np.argwhere(label == IGNORE_LABEL):
        around = label[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        assert (around != IGNORE_LABEL).any()


def test_a_record_decodes_to_its_scene():
    entry = scenes.Scenes().entries("val")[3]
    record = entry.load()
    image, label = scenes.scene((1, 3), size=scenes.SIZE)
    assert record["id"] == entry.id == "val_0003"
    np.testing.assert_array_equal(
        codec.decode_image(record["image"], name="image"), image
    )
    np.testing.assert_array_equal(
        codec.decode_label(record["label"], name="label"), label
    )
