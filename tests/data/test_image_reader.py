"""An image file means the same to preparation, training, prediction and exports."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tempseg_jax.data import codec, image_reader
from tempseg_jax.data.image_reader import BadFile
from tempseg_jax.inference import export, image_files
from tests import awkward


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("awkward")
    awkward.write(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {*awkward.READABLE, *awkward.UNREADABLE}
    return folder


@pytest.fixture(scope="module")
def use():
    """The module `use.py` of an export, as its source is written."""
    namespace = {"__name__": "use"}
    exec(compile(export.standalone_source(), "use.py", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("name", awkward.READABLE)
def test_training_prediction_and_an_export_see_the_same_pixels(name, files, use):
    path = files / name
    predicted = image_files.read(path)
    data, size = codec.to_stored(path.read_bytes(), name=name)
    trained = codec.decode_image(data, name=name)
    assert trained.shape[:2] == size
    np.testing.assert_array_equal(trained, predicted)
    exported = use["decode"](use["read_bytes"](path), name=name)
    np.testing.assert_array_equal(exported, predicted)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(image_files.read(opened), predicted)


@pytest.mark.parametrize(
    "name", ["truncated.jpg", "truncated.png", "cut-after-thumbnail.jpg"]
)
def test_preparing_finds_truncated_files_without_decoding_them(name, files):
    with pytest.raises(BadFile, match=f"{name}: the file is truncated.*no end marker"):
        codec.to_stored((files / name).read_bytes(), name=name)


@pytest.mark.parametrize("name", awkward.UNREADABLE)
def test_training_prediction_and_an_export_refuse_the_same_files(name, files, use):
    path = files / name
    with pytest.raises(BadFile, match=f"{name}: ") as predicted:
        image_files.read(path)
    with pytest.raises(BadFile, match=f"{name}: "):
        data, _ = codec.to_stored(path.read_bytes(), name=name)
        codec.decode_image(data, name=name)
    with pytest.raises(ValueError, match=re.escape(str(predicted.value))):
        use["decode"](use["read_bytes"](path), name=str(path))


def test_the_meaning_of_each_kind_of_pixel(files):
    def read(name):
        return image_files.read(files / name)

    rgb = read("rgb.bmp").astype(int)
    np.testing.assert_array_equal(read("rgb.tif"), rgb)
    alpha = (np.arange(53) * 4 % 256)[None, :, None] / 255
    expected = rgb * alpha + 255 * (1 - alpha)
    for name in ("alpha.png", "alpha.webp", "rgba16.png"):
        pixels = read(name)
        pixels = pixels[..., ::-1] if name == "rgba16.png" else pixels  # saved as BGR
        assert np.abs(pixels - expected).max() <= 1, name
    np.testing.assert_array_equal(read("gray16.png"), read("gray16.tif"))
    np.testing.assert_array_equal(read("gray16.png"), rgb[..., :1].repeat(3, axis=-1))
    np.testing.assert_array_equal(read("rgb16.png")[..., ::-1], rgb)
    np.testing.assert_array_equal(read("turned6.png"), np.rot90(rgb, -1))
    np.testing.assert_array_equal(read("turned.tif"), np.rot90(rgb, -1))
    np.testing.assert_array_equal(read("turned.webp"), np.rot90(rgb))
    assert read("badexif.jpg").shape == (37, 53, 3)  # upright, because it is unreadable
    assert read("xmp.jpg").shape == (37, 53, 3)  # only EXIF turns an image


def test_a_mutated_file_is_the_same_image_or_the_same_refusal(files):
    rng = np.random.default_rng(1)
    for name in ("progressive.jpg", "turned6.jpg", "rgb.png", "palette.png"):
        whole = (files / name).read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for position in rng.integers(0, len(data), 3):
                data[position] = rng.integers(256)
            outcomes = []
            for decode in (
                lambda x: image_reader.decode(x, name="x"),
                lambda x: codec.decode_image(codec.to_stored(x, name="x")[0], name="x"),
            ):
                try:
                    outcomes.append(decode(bytes(data)))
                except BadFile:
                    outcomes.append(None)
            np.testing.assert_equal(*outcomes)


def test_broken_files_of_the_collection_are_named(shared_data):
    folder = shared_data / "broken"
    for name in ("badexif.png", "brokenidat.png"):
        with pytest.raises(BadFile, match=f"{name}: cannot be decoded"):
            image_files.read(folder / name)
    data, size = codec.to_stored((folder / "badexif.jpg").read_bytes(), name="x")
    assert size == image_files.read(folder / "badexif.jpg").shape[:2]
    assert codec.decode_image(data, name="x").shape[:2] == size


@pytest.mark.parametrize("name", ["progressive.jpg", "rgb.png", "palette.png"])
def test_preparation_reads_only_headers_of_plain_images(name, files, monkeypatch):
    def decoded(image):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    data = (files / name).read_bytes()
    assert codec.to_stored(data, name=name) == (data, (37, 53))


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "lost.png")
    (tmp_path / "folder.png").mkdir()
    reasons = {
        "pipe": "is a pipe or a device",
        "link": "is a link to a file that does not exist",
        "folder": "is a folder",
        "lost": "there is no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(BadFile, match=f"{name}.png: {reason}"):
            image_files.read(tmp_path / f"{name}.png")


def test_damaged_exif_data_gives_no_warning(tmp_path):
    """Pillow would print one for each file; pytest replaces its filters."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    read = f"from PIL import Image; Image.open({str(path)!r}).getexif()"
    for first, printed in (("", 1), ("import tempseg_jax.data.image_reader; ", 0)):
        result = subprocess.run(
            [sys.executable, "-c", first + read], capture_output=True, text=True
        )
        assert bool(result.stderr) == printed, result.stderr
