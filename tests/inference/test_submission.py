"""Archives follow the rules of the test servers and contain the predictions."""

import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from tempseg_jax.data.labels import CITYSCAPES_LABEL_IDS, VOC_CLASSES, voc_palette
from tempseg_jax.inference import overlays, submission
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.inference.settings import DEFAULT_SETTINGS
from tempseg_jax.inference.submission_rules import RULES

VOC, CITYSCAPES = RULES["voc"], RULES["cityscapes"]


class RedChannelPredictor(Predictor):
    """Labels are the red channel modulo the number of classes."""

    def __init__(self, dataset, num_classes):
        self.dataset, self.settings = dataset, DEFAULT_SETTINGS
        self.num_classes = num_classes

    def __call__(self, image):
        return (image[..., 0] % np.uint16(self.num_classes)).astype(np.uint8)


def devkit(folder, count=3):
    rng = np.random.default_rng(0)
    ids = [f"2008_{i:06d}" for i in range(count)]
    (folder / "JPEGImages").mkdir(parents=True)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("\n".join(ids) + "\n")
    for id_ in ids:
        size = tuple(rng.integers(20, 60, 2))
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
        image.save(folder / "JPEGImages" / f"{id_}.jpg")
    return folder


def predicted(predictor, images):
    return {
        id_: predictor(np.array(Image.open(path).convert("RGB")))
        for id_, path in images.items()
    }


def test_a_voc_archive_contains_the_predictions(tmp_path):
    predictor = RedChannelPredictor("voc", 21)
    images = VOC.find(devkit(tmp_path / "VOC2012"), "test")
    out = tmp_path / "out" / "voc.tar.gz"
    submission.write(predictor, VOC, images, out=out)
    expected = predicted(predictor, images)
    actual = dict(submission.read(out, VOC))
    assert actual.keys() == expected.keys()
    for id_, labels in expected.items():
        np.testing.assert_array_equal(actual[id_], labels)
    with tarfile.open(out) as archive:
        folder = "results/VOC2012/Segmentation/comp6_test_cls/"
        names = [f"{folder}2008_{i:06d}.png" for i in range(3)]
        assert sorted(archive.getnames()) == names
        member = archive.getmember(names[0])
        with Image.open(archive.extractfile(member)) as image:
            palette = np.array(image.getpalette()).reshape(-1, 3)[:21]
            assert image.mode == "P"
    np.testing.assert_array_equal(palette, voc_palette(21))
    assert [p.name for p in out.parent.iterdir()] == ["voc.tar.gz"]


def cityscapes(folder, size=(2048, 1024)):
    path = folder / "test" / "berlin" / "berlin_000000_000019_leftImg8bit.png"
    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (size[1] // 16, size[0] // 16, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)
    return folder


def test_a_cityscapes_archive_has_label_ids_and_is_read_as_train_ids(tmp_path):
    predictor = RedChannelPredictor("cityscapes", 19)
    images = CITYSCAPES.find(cityscapes(tmp_path / "leftImg8bit"), "test")
    out = tmp_path / "cityscapes.zip"
    submission.write(predictor, CITYSCAPES, images, out=out)
    ((id_, labels),) = submission.read(out, CITYSCAPES)
    assert id_ == "berlin_000000_000019"
    np.testing.assert_array_equal(labels, predicted(predictor, images)[id_])
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == ["berlin_000000_000019.png"]
        with Image.open(archive.open("berlin_000000_000019.png")) as image:
            assert image.mode == "L" and image.size == (2048, 1024)
            assert set(np.unique(image)) <= set(CITYSCAPES_LABEL_IDS)


def test_images_of_another_size_are_refused_and_no_archive_is_written(tmp_path):
    images = CITYSCAPES.find(cityscapes(tmp_path / "x", size=(1024, 512)), "test")
    out = tmp_path / "out.zip"
    with pytest.raises(ValueError, match="1024 x 512 pixels; it must have 2048 x 1024"):
        submission.write(
            RedChannelPredictor("cityscapes", 19), CITYSCAPES, images, out=out
        )
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("dataset", "classes", "name", "message"),
    [
        ("scenes", 21, "x.tar.gz", "trained on 'scenes'"),
        ("voc", 21, "x.zip", "accepts only .tar.gz files"),
        ("voc", 256, "x.tar.gz", "the classes are 0 to 20"),
    ],
)
def test_predictions_that_the_server_would_refuse_are_refused(
    tmp_path, dataset, classes, name, message
):
    images = VOC.find(devkit(tmp_path / "VOC2012"), "test")
    with pytest.raises(ValueError, match=message):
        submission.write(
            RedChannelPredictor(dataset, classes), VOC, images, out=tmp_path / name
        )
    assert [p.name for p in tmp_path.iterdir()] == ["VOC2012"]


def test_a_broken_image_leaves_no_archive(tmp_path):
    images = VOC.find(devkit(tmp_path / "VOC2012"), "test")
    images["2008_000001"].write_bytes(b"broken")
    with pytest.raises(ValueError, match="2008_000001.jpg.*needs every image"):
        submission.write(
            RedChannelPredictor("voc", 21), VOC, images, out=tmp_path / "x.tar.gz"
        )
    assert [p.name for p in tmp_path.iterdir()] == ["VOC2012"]


def voc_archive(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, image in members:
            file = path.parent / "member.png"
            image.save(file)
            archive.add(file, VOC.folder + name)


GOOD = overlays.indexed(np.zeros((4, 5), np.uint8), voc_palette(len(VOC_CLASSES)))
VOID = overlays.indexed(np.full((4, 5), 255, np.uint8), voc_palette(len(VOC_CLASSES)))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "1 predictions are missing, such as a"),
        ([("a.png", GOOD), ("b.png", GOOD)], "b is not one of the images"),
        ([("a.png", GOOD), ("a.png", GOOD)], "a occurs twice"),
        ([("a.png", GOOD.resize((5, 9)))], r"prediction of a has \(9, 5\) pixels"),
        (
            [("a.png", GOOD.convert("L"))],
            "a.png: the PNG has mode 'L'; it must be indexed",
        ),
        ([("a.png", VOID)], "a.png: the PNG contains the label 255"),
        ([("a.jpg", GOOD)], "is not named results/VOC2012"),
    ],
)
def test_an_invalid_archive_is_refused(tmp_path, members, message):
    voc_archive(tmp_path / "x.tar.gz", members)
    with pytest.raises(ValueError, match=message):
        submission.check(tmp_path / "x.tar.gz", VOC, sizes={"a": (4, 5)})


def test_a_valid_archive_passes(tmp_path):
    voc_archive(tmp_path / "x.tar.gz", [("a.png", GOOD)])
    submission.check(tmp_path / "x.tar.gz", VOC, sizes={"a": (4, 5)})


def test_a_missing_list_or_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="test.txt"):
        VOC.find(tmp_path, "test")
    kit = devkit(tmp_path / "VOC2012")
    (kit / "JPEGImages" / "2008_000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="2008_000002.jpg"):
        VOC.find(kit, "test")
    with pytest.raises(FileNotFoundError, match="leftImg8bit"):
        CITYSCAPES.find(tmp_path, "test")
