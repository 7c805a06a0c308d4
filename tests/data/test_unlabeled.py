"""Batches with unlabeled images, and folders of such images."""

import numpy as np
import pytest

from tempseg_jax.data import catalog, codec, pipeline
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.subset import divide
from tempseg_jax.data.unlabeled import Unlabeled
from tempseg_jax.types import IGNORE_LABEL
from tests import miniatures
from tests.data.training_batches import training_batches


def make_record(index, *, label=None):
    """An image of one gray value, by which it is recognized; 24 x 20 pixels."""
    image = np.full((24, 20, 3), 10 + index, np.uint8)
    label = np.full((24, 20), index % 4, np.uint8) if label is None else label
    return {
        "id": f"r{index}",
        "image": codec.encode_image(image),
        "label": codec.encode_label(label),
    }


def make_split(records):
    return Split("tiny", "train", records, tuple("abcd"), np.zeros((4, 3), np.uint8))


LABELED = make_split([make_record(i) for i in range(3)])
OTHERS = make_split([make_record(i) for i in range(100, 107)])


def batches(count, *, others=OTHERS, **changes):
    unlabeled = None if others is None else Unlabeled(others, None, 2)
    changes = {"unlabeled": unlabeled, "photometric": False} | changes
    return training_batches(LABELED, count, **changes)


def assert_equal(left, right, *, of=slice(None)):
    for a, b in zip(left, right, strict=True):
        for name in b:
            np.testing.assert_array_equal(a[name][of], b[name], err_msg=name)


@pytest.fixture(scope="module")
def expected():
    return batches(5)


def test_the_labeled_images_are_those_of_the_batches_without_others(expected):
    alone = batches(5, others=None)
    assert alone[0].keys() == {"image", "label"}
    assert_equal(expected, alone)


def test_every_batch_has_the_same_number_of_images_without_labels(expected):
    assert all(batch["unlabeled_image"].shape == (2, 16, 16, 3) for batch in expected)
    seen = {
        int(image[visible].min())
        for batch in batches(8)
        for image, visible in zip(
            batch["unlabeled_image"], batch["unlabeled_visible"], strict=True
        )
    }
    assert seen == {10 + i for i in range(100, 107)}  # in one pass, each of them


def test_all_but_the_padding_is_visible(expected):
    padded = 0
    for batch in expected:
        visible, image = batch["unlabeled_visible"], batch["unlabeled_image"]
        assert visible.dtype == bool
        padded += np.sum(~visible)
        assert np.all(image[~visible] == pipeline.PAD_COLOR)
        assert np.all(image[visible] >= 110) and np.all(image[visible] <= 116)
    assert padded > 0, "this test needs a crop with padding"


def test_a_batch_depends_on_the_step_alone(expected):
    assert_equal(batches(2, start_step=3, num_workers=2), expected[3:])
    assert_equal(batches(5, cache_bytes=10**6), expected)


def test_the_shares_of_two_processes_are_the_batches_of_one(expected):
    for i in range(2):
        share = batches(5, process_index=i, process_count=2)
        for a, b in zip(share, expected, strict=True):
            for name, value in b.items():
                half = len(value) // 2
                of = slice(i * half, (i + 1) * half)
                np.testing.assert_array_equal(a[name], value[of], err_msg=name)


def test_no_pixel_depends_on_the_labels_that_are_not_used(expected):
    void = np.full((24, 20), IGNORE_LABEL, np.uint8)
    others = [make_record(i, label=void) for i in range(100, 107)]
    assert_equal(batches(5, others=make_split(others)), expected)


def test_the_number_of_processes_must_divide_both_batch_sizes():
    unlabeled = Unlabeled(OTHERS, None, 3)
    with pytest.raises(ValueError, match="data.unlabeled_batch_size=3.*processes, 2"):
        batches(1, unlabeled=unlabeled, process_count=2)


def test_labeled_and_other_images_are_the_whole_split_also_of_a_part():
    split = make_split([make_record(i) for i in range(20)])
    part, _ = divide(split, fraction=0.5, seed=1)
    for whole in (split, part):
        labeled, others = divide(whole, fraction=1 / 4, seed=0)
        ids = [[x["id"] for x in s.examples] for s in (labeled, others, whole)]
        assert len(ids[0]) == round(len(ids[2]) / 4)
        assert sorted(ids[0] + ids[1]) == sorted(ids[2])
        # Tiles and counted pixels have the indices of the whole split.
        assert [f"r{i}" for i in others.examples.indices] == ids[1]
    assert divide(split, fraction=1.0, seed=0) == (split, None)


def test_a_folder_of_images_without_masks_is_read(tmp_path):
    files = {f"{i}.jpg": miniatures.jpeg(i) for i in range(3)}
    files["more/9.png"] = miniatures.png(np.zeros((6, 4, 3), np.uint8))
    miniatures.write_folder(tmp_path / "images", files)

    def load(downscale):
        return catalog.load_images(
            str(tmp_path / "images"),
            data_dir=str(tmp_path / "prepared"),
            on_error="raise",
            downscale=downscale,
        )

    split = load(1)
    assert [x["id"] for x in split.examples] == ["0", "1", "2", "more/9"]
    assert split.sizes == {(20, 30): 3, (6, 4): 1} and not split.class_names
    label = codec.decode_label(split.examples[3]["label"], name="")
    np.testing.assert_array_equal(label, np.full((6, 4), IGNORE_LABEL))
    assert load(2).sizes == {(10, 15): 3, (3, 2): 1}


def test_a_folder_without_images_is_refused(tmp_path):
    for folder, message in ((tmp_path, "no images"), (tmp_path / "x", "not exist")):
        with pytest.raises(FileNotFoundError, match=f"data.unlabeled_dir.*{message}"):
            catalog.load_images(
                str(folder), data_dir=str(tmp_path), on_error="raise", downscale=1
            )
