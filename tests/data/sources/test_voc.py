import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from tempseg_jax.data import codec, labels
from tempseg_jax.data.sources import voc
from tempseg_jax.io.download import RemoteFile
from tests import file_server, miniatures

TRAIN, VAL, OTHERS = ["t1", "t2", "t3"], ["v1", "v2"], ["o1", "o2"]
TAR = "VOCtrainval_11-May-2012.tar"


@pytest.fixture(autouse=True)
def official_counts_of_the_miniature(monkeypatch):
    counts = {"train": len(TRAIN), "val": len(VAL), "extra": len(OTHERS)}
    monkeypatch.setattr(voc, "OFFICIAL_COUNTS", counts)
    monkeypatch.setattr(voc, "check_official", lambda ids, *, where: None)


def source(folder, *, allow_missing=False):
    return voc.Voc(
        manual_dir=str(folder), download_dir=Path("unused"), allow_missing=allow_missing
    )


def ids(dataset, split):
    return [entry.id for entry in dataset.entries(split)]


@pytest.fixture
def members():
    return miniatures.voc_members(TRAIN, VAL, OTHERS)


@pytest.fixture
def sbd():
    # Like the real SBD, it overlaps with both lists of VOC.
    return miniatures.sbd_members(["t1", "o2", "v1"], ["o1", "v2"])


def write_archives(folder, members, sbd=None):
    folder.mkdir(exist_ok=True)
    miniatures.write_tar(folder / TAR, members, prefix="VOCdevkit/VOC2012/")
    if sbd:
        write_sbd(folder, sbd)


def write_sbd(folder, sbd):
    prefix = "benchmark_RELEASE/dataset/"
    miniatures.write_tar(folder / "benchmark.tgz", sbd, prefix=prefix, mode="w:gz")


def test_an_unpacked_devkit_is_found_from_any_of_its_folders(tmp_path, members):
    miniatures.write_folder(tmp_path / "VOCdevkit" / "VOC2012", members)
    for below in ("", "VOCdevkit", "VOCdevkit/VOC2012"):
        dataset = source(tmp_path / below)
        assert dataset.splits == ("train", "val")
        assert ids(dataset, "train") == TRAIN and ids(dataset, "val") == VAL


def test_the_archive_and_the_unpacked_devkit_have_equal_records(tmp_path, members):
    miniatures.write_folder(tmp_path / "unpacked" / "VOC2012", members)
    write_archives(tmp_path / "packed", members)
    for split in ("train", "val"):
        left = source(tmp_path / "unpacked").entries(split)
        right = source(tmp_path / "packed").entries(split)
        assert [e.load() for e in left] == [e.load() for e in right]


def test_records_contain_the_jpeg_file_and_the_palette_indices(tmp_path, members):
    write_archives(tmp_path, members)
    record = source(tmp_path).entries("train")[1].load()
    assert record["image"] == members["JPEGImages/t2.jpg"]
    label = codec.decode_label(record["label"], name="label")
    np.testing.assert_array_equal(label, miniatures.mask(1))


def test_train_aug_is_train_and_sbd_without_val(tmp_path, members, sbd):
    write_archives(tmp_path, members, sbd)
    dataset = source(tmp_path)
    assert dataset.split_expression("train_aug") == "train+extra"
    assert ids(dataset, "extra") == ["o1", "o2"]
    record = dataset.entries("extra")[1].load()
    expected = miniatures.mask(101, values=(0, 7, 20))  # o2 is SBD's second
    label = codec.decode_label(record["label"], name="label")
    np.testing.assert_array_equal(label, expected)
    assert record["image"] == members["JPEGImages/o2.jpg"]


def test_sbd_may_be_unpacked_or_decompressed(tmp_path, members, sbd):
    write_archives(tmp_path / "tgz", members, sbd)
    write_archives(tmp_path / "folder", members)
    miniatures.write_folder(tmp_path / "folder/benchmark_RELEASE/dataset", sbd)
    write_archives(tmp_path / "tar", members)
    prefix = "./benchmark_RELEASE/dataset/"
    miniatures.write_tar(tmp_path / "tar/benchmark.tgz", sbd, prefix=prefix)
    records = [
        [e.load() for e in source(tmp_path / kind).entries("extra")]
        for kind in ("tgz", "folder", "tar")
    ]
    assert records[0] == records[1] == records[2]


def test_segmentation_class_aug_replaces_sbd(tmp_path, members):
    for id_ in [*TRAIN, *VAL, *OTHERS]:
        label = miniatures.mask(7)
        members[f"SegmentationClassAug/{id_}.png"] = miniatures.png(label)
    for name in (".DS_Store", "._o1.png", "notes.txt"):
        members[f"SegmentationClassAug/{name}"] = b""
    miniatures.write_folder(tmp_path / "VOC2012", members)
    dataset = source(tmp_path)
    assert ids(dataset, "extra") == OTHERS
    label = codec.decode_label(dataset.entries("extra")[0].load()["label"], name="o1")
    np.testing.assert_array_equal(label, miniatures.mask(7))


def test_a_devkit_without_its_lists_is_refused_with_the_remedy(tmp_path, members):
    files = {k: v for k, v in members.items() if not k.startswith("ImageSets/")}
    miniatures.write_folder(tmp_path / "VOC2012", files)
    with pytest.raises(FileNotFoundError, match="train.txt is missing; download VOC"):
        source(tmp_path).entries("train")


def test_without_sbd_train_aug_is_refused_with_the_remedy(tmp_path, members):
    write_archives(tmp_path, members)
    with pytest.raises(ValueError, match="train_aug needs SBD; put benchmark.tgz"):
        source(tmp_path).split_expression("train_aug")
    with pytest.raises(ValueError, match="no split 'test'; choose one of train, val"):
        source(tmp_path).split_expression("test")


def test_missing_images_are_counted_and_skipped_if_allowed(tmp_path, members):
    del members["JPEGImages/t2.jpg"], members["SegmentationClass/v1.png"]
    write_archives(tmp_path, members)
    message = r"1 of 3 train images, 1 of 2 val images are missing.*such as t2"
    with pytest.raises(ValueError, match=rf"{message}.*allow_missing=true"):
        ids(source(tmp_path), "train")
    dataset = source(tmp_path, allow_missing=True)
    assert ids(dataset, "train") == ["t1", "t3"] and ids(dataset, "val") == ["v2"]
    (note,) = dataset.notes()
    assert re.search(message, note) and note.endswith("; the others are used")


def test_an_image_in_train_and_val_is_refused(tmp_path):
    write_archives(tmp_path, miniatures.voc_members([*TRAIN, "v2"], VAL))
    with pytest.raises(ValueError, match="1 images are in both train and val.*v2"):
        ids(source(tmp_path), "train")


def test_a_missing_mat_is_named(tmp_path, members, sbd):
    del sbd["cls/o1.mat"]
    write_archives(tmp_path, members, sbd)
    with pytest.raises(codec.BadFile, match="cls/o1.mat is missing"):
        source(tmp_path).entries("extra")[0].load()


def test_a_mat_without_labels_is_named(tmp_path, members, sbd):
    sbd["cls/o1.mat"] = sbd["cls/o1.mat"][:100]
    write_archives(tmp_path, members, sbd)
    with pytest.raises(codec.BadFile, match="cls/o1.mat contains no GTcls"):
        source(tmp_path).entries("extra")[0].load()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_a_truncated_tar_is_refused(tmp_path, members, share):
    write_archives(tmp_path, members)
    path = tmp_path / TAR
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        ValueError, match=f"{TAR} is truncated or not an archive.*download it again"
    ):
        ids(source(tmp_path), "train")


def test_a_tar_that_ends_between_two_members_is_refused(tmp_path, members):
    write_archives(tmp_path, members)
    path = tmp_path / TAR
    whole = path.read_bytes()
    last = whole.rindex(b"VOCdevkit/VOC2012/JPEGImages/o2.jpg")
    path.write_bytes(whole[:last])
    with pytest.raises(ValueError, match="is truncated or not an archive"):
        ids(source(tmp_path), "train")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_tgz_is_refused(tmp_path, members, sbd, share):
    write_archives(tmp_path, members, sbd)
    path = tmp_path / "benchmark.tgz"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        ValueError, match="benchmark.tgz is truncated or not an archive"
    ):
        ids(source(tmp_path), "extra")


def test_a_corrupted_tgz_is_refused(tmp_path, members, sbd):
    write_archives(tmp_path, members, sbd)
    path = tmp_path / "benchmark.tgz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match="benchmark.tgz is truncated or not an archive"
    ):
        ids(source(tmp_path), "extra")


def test_an_archive_of_another_year_is_refused(tmp_path, members):
    path = tmp_path / "VOCtrainval_06-Nov-2007.tar"
    miniatures.write_tar(path, members, prefix="VOCdevkit/VOC2007/")
    with pytest.raises(ValueError, match="2007.tar contains VOCdevkit/VOC2007, not"):
        ids(source(tmp_path), "train")


def test_members_outside_the_devkit_are_never_read(tmp_path, members):
    path = tmp_path / TAR
    prefix = "VOCdevkit/VOC2012/"
    hostile = {f"{prefix}{name}": data for name, data in members.items()}
    hostile["../../escaped.txt"] = hostile["/escaped.txt"] = b"!"
    miniatures.write_tar(path, hostile)
    assert ids(source(tmp_path), "train") == TRAIN
    assert not list(tmp_path.parent.rglob("escaped.txt"))


def test_for_an_empty_or_absent_folder_the_message_says_what_to_put_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="contains neither VOCtrainval_11-May"):
        source(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent does not exist; set it to"):
        source(tmp_path / "absent")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (miniatures.mask(values=(0, 21)), "value 21 is neither a class"),
        (miniatures.mask(height=21), "30x21 pixels, but its image has 30x20"),
        (np.zeros((20, 30, 4), np.uint8), "'RGBA'.*without an alpha channel"),
        (np.zeros((20, 30), np.uint16), "8-bit gray"),
    ],
)
def test_an_unusable_mask_is_named(tmp_path, members, array, message):
    members["SegmentationClass/t1.png"] = miniatures.png(array)
    write_archives(tmp_path, members)
    with pytest.raises(codec.BadFile, match=rf"SegmentationClass/t1.png.*{message}"):
        source(tmp_path).entries("train")[0].load()


def test_the_fingerprint_changes_with_the_files(tmp_path, members):
    root = tmp_path / "VOC2012"
    miniatures.write_folder(root, members)
    before = source(tmp_path).fingerprint()
    assert source(tmp_path).fingerprint() == before
    (root / "JPEGImages" / "t1.jpg").write_bytes(miniatures.jpeg(99))
    assert source(tmp_path).fingerprint() != before


def test_the_fingerprint_changes_with_the_lists_of_an_unpacked_sbd(
    tmp_path, members, sbd
):
    write_archives(tmp_path, members)
    root = tmp_path / "benchmark_RELEASE/dataset"
    miniatures.write_folder(root, sbd)
    before = source(tmp_path).fingerprint()
    assert source(tmp_path).fingerprint() == before
    with (root / "train.txt").open("a") as file:
        file.write("o9\n")
    assert source(tmp_path).fingerprint() != before


@pytest.fixture
def official(shared_data):
    folder = shared_data / "voc2012_lists"
    return {path.stem: path.read_text().split() for path in folder.glob("*.txt")}


def test_train_aug_is_the_official_list(official):
    train, val = official["train"], official["val"]
    labeled = {*official["train_aug"], *val[:700]}  # SBD also labels images of val
    extra = voc.extra_ids(labeled, train=train, val=val)
    assert len(extra) == 9118
    assert sorted([*train, *extra]) == sorted(official["train_aug"])


def test_lists_that_are_not_the_official_ones_are_refused(monkeypatch, official):
    monkeypatch.undo()
    train, val = official["train"], official["val"]
    extra = sorted(set(official["train_aug"]) - set(train))
    lists = {"train": train, "val": val, "extra": extra}
    voc.check_official(lists, where="here")
    with pytest.raises(ValueError, match="10,582 images of train_aug are not"):
        voc.check_official(lists | {"extra": [*extra[1:], "2008_x"]}, where="here")


def test_a_part_of_the_real_voc_loads(monkeypatch, shared_data):
    monkeypatch.undo()
    folder = shared_data / "VOCdevkit"
    with pytest.raises(ValueError, match="1,153 of 1,464 train images"):
        ids(source(folder), "train")
    entries = source(folder, allow_missing=True).entries("val")
    assert len(entries) == 321
    label = codec.decode_label(entries[0].load()["label"], name="label")
    assert set(np.unique(label)) <= {*range(len(labels.VOC_CLASSES)), 255}


def test_without_a_folder_voc_and_sbd_are_downloaded(
    tmp_path, monkeypatch, members, sbd
):
    write_archives(tmp_path, members, sbd)
    archives = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with file_server.serve(archives) as server:
        for remote, name in (("TRAINVAL", TAR), ("BENCHMARK", "benchmark.tgz")):
            content = archives[name]
            sha256 = hashlib.sha256(content).hexdigest()
            file = RemoteFile(server.url(name), "sha256", sha256, len(content))
            monkeypatch.setattr(voc, remote, file)
        dataset = voc.Voc(
            manual_dir=None, download_dir=tmp_path / "downloads", allow_missing=False
        )
        dataset.fingerprint()
        assert server.requests == []  # a prepared dataset needs no download
        assert ids(dataset, "extra") == OTHERS
        assert len(server.requests) == 2
