import numpy as np
import pytest

from tempseg_jax.data import codec, labels
from tempseg_jax.data.sources import cityscapes
from tempseg_jax.types import IGNORE_LABEL
from tests import miniatures

IDS = {
    "train": ["aachen_000000_000019", "bonn_000001_000019"],
    "val": ["munster_000000_000019"],
    "test": ["berlin_000000_000019"],
}
ZIPS = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")


@pytest.fixture(autouse=True)
def official_counts_of_the_miniature(monkeypatch):
    counts = {split: len(ids) for split, ids in IDS.items()}
    monkeypatch.setattr(cityscapes, "OFFICIAL_COUNTS", counts)


def source(folder, *, allow_missing=False):
    return cityscapes.Cityscapes(manual_dir=str(folder), allow_missing=allow_missing)


@pytest.fixture
def archives(tmp_path):
    for name, members in zip(ZIPS, miniatures.cityscapes_members(IDS), strict=True):
        miniatures.write_zip(tmp_path / name, members)
    return tmp_path


def test_the_id_table_is_the_official_one():
    table = labels.cityscapes_train_ids()
    assert list(np.flatnonzero(table != IGNORE_LABEL)) == (
        [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    )
    assert list(table[list(labels.CITYSCAPES_LABEL_IDS)]) == list(range(19))
    assert len(labels.CITYSCAPES_CLASSES) == len(labels.cityscapes_palette()) == 19


def test_zips_are_read_as_images_and_train_ids(archives):
    dataset = source(archives)
    assert dataset.splits == ("train", "val", "test")
    assert [entry.id for entry in dataset.entries("train")] == IDS["train"]
    record = dataset.entries("train")[1].load()
    label_ids = miniatures.mask(1, height=16, width=32, values=(0, 7, 8, 33, 10))
    expected = np.full_like(label_ids, IGNORE_LABEL)
    for label_id, train_id in ((7, 0), (8, 1), (33, 18)):
        expected[label_ids == label_id] = train_id
    label = codec.decode_label(record["label"], name="label")
    np.testing.assert_array_equal(label, expected)
    assert codec.decode_image(record["image"], name="image").max() == 1


def test_the_zips_and_the_unpacked_folders_have_equal_records(archives, tmp_path):
    for members in miniatures.cityscapes_members(IDS):
        miniatures.write_folder(tmp_path / "unpacked", members)
    for split in IDS:
        left = source(archives).entries(split)
        right = source(tmp_path / "unpacked").entries(split)
        assert [e.load() for e in left] == [e.load() for e in right]


def test_labels_of_test_images_are_all_void(archives):
    record = source(archives).entries("test")[0].load()
    label = codec.decode_label(record["label"], name="label")
    assert label.shape == (16, 32) and (label == IGNORE_LABEL).all()


def test_a_missing_zip_of_labels_is_named(archives):
    (archives / ZIPS[1]).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"contains neither {ZIPS[1]} nor gtFine/"
    ):
        source(archives)


def test_a_zip_without_fine_labels_is_refused(archives):
    miniatures.write_zip(archives / ZIPS[1], {"gtCoarse/train/a.png": b""})
    with pytest.raises(
        FileNotFoundError, match=r"contains no gtFine/train/.*labelIds.png"
    ):
        source(archives).entries("train")


def test_a_truncated_zip_is_refused(archives):
    path = archives / ZIPS[0]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"{ZIPS[0]} is truncated or not an archive"):
        source(archives)


def test_a_corrupted_member_is_named(archives):
    path = archives / ZIPS[0]
    data = bytearray(path.read_bytes())
    data[data.index(b"aachen_000000_000019_leftImg8bit.png") + 50] ^= 255
    path.write_bytes(data)
    with pytest.raises(codec.BadFile, match="aachen.*cannot be read"):
        source(archives).entries("train")[0].load()


def test_missing_images_and_labels_are_counted(archives):
    images, annotations = miniatures.cityscapes_members(IDS | {"train": IDS["train"]})
    annotations.pop("gtFine/train/bonn/bonn_000001_000019_gtFine_labelIds.png")
    miniatures.write_zip(archives / ZIPS[1], annotations)
    with pytest.raises(ValueError, match="1 of 2 train images or their labels.*bonn"):
        source(archives).entries("train")
    dataset = source(archives, allow_missing=True)
    assert [entry.id for entry in dataset.entries("train")] == IDS["train"][:1]
    (note,) = dataset.notes()
    assert "1 of 2 train images or their labels" in note
    assert note.endswith("are missing; the others are used")


def test_a_label_id_above_the_official_ones_is_refused(archives):
    images, annotations = miniatures.cityscapes_members(IDS)
    name = "gtFine/val/munster/munster_000000_000019_gtFine_labelIds.png"
    annotations[name] = miniatures.png(np.full((16, 32), 34, np.uint8))
    miniatures.write_zip(archives / ZIPS[1], annotations)
    with pytest.raises(codec.BadFile, match="munster.*value 34 is neither a class"):
        source(archives).entries("val")[0].load()


def test_without_a_folder_the_message_says_where_to_download():
    with pytest.raises(ValueError, match="www.cityscapes-dataset.com"):
        cityscapes.Cityscapes(manual_dir=None, allow_missing=False)
