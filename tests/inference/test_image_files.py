"""Image files of many formats become upright 8-bit RGB, or an error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tempseg_jax.inference import image_files
from tempseg_jax.inference.image_files import BadFile

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def save_and_read(image, tmp_path, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return image_files.read(tmp_path / name)


def test_rgb_is_unchanged_from_a_file_a_pil_image_and_an_array(tmp_path):
    picture = Image.fromarray(RGB)
    for pixels in (
        save_and_read(picture, tmp_path),
        image_files.read(picture),
        image_files.read(RGB),
        image_files.read(str(tmp_path / "image.png")),
    ):
        np.testing.assert_array_equal(pixels, RGB)


def test_gray_becomes_three_equal_channels(tmp_path):
    gray = RGB[..., 0]
    for image in (Image.fromarray(gray), Image.fromarray(gray.astype(np.uint16) << 8)):
        pixels = save_and_read(image, tmp_path)
        np.testing.assert_array_equal(pixels, np.repeat(gray[..., None], 3, axis=-1))
    black_and_white = Image.fromarray(gray > 99)
    assert black_and_white.mode == "1"
    assert set(np.unique(save_and_read(black_and_white, tmp_path))) == {0, 255}


def test_a_palette_gives_its_colors_and_not_its_indices(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8))
    indexed.putpalette([255, 0, 0, 0, 128, 255])
    pixels = save_and_read(indexed, tmp_path)
    np.testing.assert_array_equal(pixels, [[[255, 0, 0], [0, 128, 255]]])


def test_transparent_images_are_composited_on_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    pixels = save_and_read(Image.fromarray(rgba), tmp_path)
    np.testing.assert_array_equal(pixels, [[[10, 20, 30], [255, 255, 255]]])
    pixels = save_and_read(Image.fromarray(rgba).convert("LA"), tmp_path)
    assert pixels[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation, tmp_path):
    undo = [
        lambda x: x,
        lambda x: x[:, ::-1],
        lambda x: x[::-1, ::-1],
        lambda x: x[::-1],
        lambda x: x.swapaxes(0, 1),
        lambda x: np.rot90(x, -1),
        lambda x: x[::-1, ::-1].swapaxes(0, 1),
        lambda x: np.rot90(x),
    ][orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = save_and_read(Image.fromarray(RGB), tmp_path, exif=exif)
    np.testing.assert_array_equal(pixels, undo(RGB))


@pytest.mark.parametrize("mode", ["CMYK", "F", "I", "LAB"])
def test_pixel_types_without_a_unique_meaning_are_refused(mode, tmp_path):
    source = "L" if mode in "FI" else "RGB"
    if mode == "LAB":
        image = Image.new("LAB", (4, 4))
    else:
        image = Image.fromarray(RGB).convert(source).convert(mode)
    with pytest.raises(BadFile, match=rf"x.tif: pixels of type '{mode}'"):
        save_and_read(image, tmp_path, name="x.tif")


def test_broken_files_are_named(tmp_path):
    Image.fromarray(np.tile(RGB, (20, 20, 1))).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    contents = {
        "truncated.jpg": whole[: len(whole) // 2],
        "header.jpg": whole[:20],
        "empty.png": b"",
        "text.png": b"no image",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadFile, match=name):
            image_files.read(tmp_path / name)
    with pytest.raises(BadFile, match="lost.png: there is no such file"):
        image_files.read(tmp_path / "lost.png")
    with pytest.raises(BadFile, match="is a folder"):
        image_files.read(tmp_path)


def test_a_folder_gives_its_images_in_order_and_one_without_is_refused(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    for name in ("b/2.JPG", "1.png", "notes.txt", "b/.2.png"):
        (tmp_path / name).touch()
    files, left_out = image_files.find([tmp_path, tmp_path / "1.png"])
    assert left_out == "left out 1 of the files in folders: .txt (1)"
    names = [str(name) for _, name in files]
    assert names == ["1.png", "b/2.JPG", "1.png"]
    with pytest.raises(FileNotFoundError, match="has no image files"):
        image_files.find([tmp_path / "c"])
    with pytest.raises(FileNotFoundError, match="lost"):
        image_files.find([tmp_path / "lost"])


def test_earlier_results_within_a_folder_are_not_searched(tmp_path):
    out = tmp_path / "predicted"
    out.mkdir()
    for path in (tmp_path / "1.png", out / "1.png"):
        path.touch()
    assert len(image_files.find([tmp_path])[0]) == 2
    found = image_files.find([tmp_path], out=out)
    assert found == ([(tmp_path / "1.png", Path("1.png"))], "")
    assert len(image_files.find([out], out=out)[0]) == 1  # written beside the images
    assert len(image_files.find([out], out=tmp_path)[0]) == 1  # written above them


def test_shrinking_keeps_the_aspect_ratio():
    assert image_files.shrunk(RGB, largest_side=9) is RGB
    assert image_files.shrunk(RGB, largest_side=3).shape == (2, 3, 3)


def test_an_array_without_pixels_is_refused():
    with pytest.raises(BadFile, match=r"an array of shape \(0, 9, 3\)"):
        image_files.read(RGB[:0])
