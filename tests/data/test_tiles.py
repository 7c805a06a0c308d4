import dataclasses
import errno
import json
import os
import shutil

import cv2
import numpy as np
import pytest

from tempseg_jax.data import tile_preparation, tiles
from tempseg_jax.data.catalog import load_split
from tempseg_jax.data.tiles import GROUP, TILE
from tests import miniatures
from tests.data.training_batches import training_batches
from tests.support import replace_once

SIZES = [(300, 420), (2 * TILE, 3 * TILE), (131, 129), (20, 30), (TILE, 500)]


def smooth(seed, height, width):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def write_images(root):
    """Write a dataset of PNG images of several sizes; the first one is black."""
    for i, (height, width) in enumerate(SIZES):
        image = smooth(i, height, width) * (i > 0)
        label = smooth(i + 50, height, width)[..., 0] // 86 * (i > 0)
        for split in ("train", "val"):
            files = {
                f"{split}/{i}.png": miniatures.png(image),
                f"{split}annot/{i}.png": miniatures.png(label.astype(np.uint8)),
            }
            miniatures.write_folder(root, files)
    return root


def load(root, data_dir, **options):
    return load_split(
        "folder", split="train", manual_dir=str(root), data_dir=str(data_dir), **options
    )


def batches(split, stored, count=12, **changes):
    return training_batches(
        split, count, **{"tiles": stored, "crop_size": 96} | changes
    )


def assert_equal(left, right):
    for one, other in zip(left, right, strict=True):
        for key in ("image", "label"):
            np.testing.assert_array_equal(one[key], other[key])


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return load(write_images(folder / "own"), folder / "tfds")


@pytest.fixture(scope="module")
def stored(split):
    return tile_preparation.prepare(split, on_error="raise")


@pytest.fixture
def copy(split, stored, tmp_path):
    """A copy of the stored tiles, to damage it."""
    return shutil.copytree(stored.folder, tmp_path / "copy")


def test_every_window_has_the_pixels_of_the_decoded_image(split, stored):
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate(SIZES):
        whole = tile_preparation.decode(split.examples[index], split=split)
        example = stored[index]
        assert example["image"].shape == whole["image"].shape == (height, width, 3)
        assert example["label"].shape == whole["label"].shape
        for _ in range(40):
            top, left = rng.integers(height), rng.integers(width)
            bottom, right = rng.integers(top, height) + 1, rng.integers(left, width) + 1
            window = np.s_[int(top) : int(bottom), int(left) : int(right)]
            for key in ("image", "label"):
                np.testing.assert_array_equal(example[key][window], whole[key][window])


def test_residuals_of_any_pixels_are_inverted_from_the_top_of_any_group():
    # Noise reaches every difference modulo 256.
    shape = (2 * GROUP + 5, 7, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    residual = tiles.to_residual(image)
    for top in (0, GROUP, 2 * GROUP):
        for skip in (0, 1, 4):
            for stop in (top + 5, len(image)):
                rows = tiles.from_residual(residual[top:stop].copy(), skip=skip)
                np.testing.assert_array_equal(rows, image[top + skip : stop])


def test_a_residual_is_the_definition_of_its_docstring():
    image = np.zeros((GROUP + 1, 1, 3), np.uint8)
    image[:] = 10, 20, 25
    image[1] = 10, 19, 30
    residual = tiles.to_residual(image)
    assert residual[0, 0].tolist() == residual[GROUP, 0].tolist() == [246, 20, 5]
    assert residual[1, 0].tolist() == [1, 255, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_tiles_are_those_from_the_images(split, stored, workers):
    expected = batches(split, None)
    assert_equal(expected, batches(split, stored, num_workers=workers))
    rest = batches(split, stored, 5, start_step=7, num_workers=workers)
    assert_equal(expected[7:], rest)


@pytest.mark.parametrize("cat_max_ratio", [0.75, 1.0])
def test_batches_do_not_depend_on_how_many_images_are_cached(
    split, stored, cat_max_ratio
):
    expected = batches(split, None, cat_max_ratio=cat_max_ratio)
    for cache_bytes in (4 * 300 * 420, 1 << 30):
        changes = {"cache_bytes": cache_bytes, "cat_max_ratio": cat_max_ratio}
        assert_equal(expected, batches(split, stored, **changes))


def test_only_images_without_tiles_are_decoded(split, stored, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("tempseg_jax.data.decoder.decode", refuse)
    batches(split, stored)


def test_photographs_give_the_same_batches_in_less_space(shared_data, tmp_path):
    folder = shared_data / "VOCdevkit/VOC2012/JPEGImages"
    photos = [cv2.imread(str(path)) for path in sorted(folder.iterdir())[:4]]
    sides = [min(photo.shape[i] for photo in photos) for i in range(2)]
    photos = [photo[: sides[0], : sides[1]] for photo in photos]
    image = np.block([[[photos[0]], [photos[1]]], [[photos[2]], [photos[3]]]])
    png = cv2.imencode(".png", image)[1].tobytes()
    label = miniatures.png(image[..., 1] // 64)
    for name in ("train", "val"):
        files = {f"{name}/a.png": png, f"{name}annot/a.png": label}
        miniatures.write_folder(tmp_path / "own", files)
    split = load(tmp_path / "own", tmp_path / "tfds")
    stored = tile_preparation.prepare(split, on_error="raise")
    changes = {"crop_size": 416, "photometric": False, "count": 4}
    assert_equal(batches(split, None, **changes), batches(split, stored, **changes))
    assert tiles.stored_bytes(stored.folder)[1] < len(png)


class Examples(list):
    """Records of which some may be undecodable, as if they were prepared."""

    expression = "train"


@pytest.fixture
def broken(split, tmp_path):
    """The split with two images that have an end marker, but no content."""
    examples = Examples(split.examples)
    examples.folder = tmp_path / "1.0"
    for i in (1, 4):
        png = examples[i]["image"]
        examples[i] = examples[i] | {"image": png[:80] + bytes(60) + png[140:]}
    return dataclasses.replace(split, examples=examples)


def test_undecodable_images_are_named_and_nothing_is_kept(broken, tmp_path):
    with pytest.raises(ValueError) as caught:
        tile_preparation.prepare(broken, on_error="raise")
    assert "2 problem files" in str(caught.value)
    assert "train: 1 (image)" in str(caught.value)
    assert "data.on_error=skip" in str(caught.value)
    assert not list(tmp_path.rglob("zarr.json"))


def test_with_skip_the_same_images_replace_undecodable_ones(broken):
    stored = tile_preparation.prepare(broken, on_error="skip")
    changes = {"on_error": "skip", "num_workers": 2}
    assert_equal(batches(broken, None, **changes), batches(broken, stored, **changes))
    with pytest.raises(ValueError, match="2 problem files: .*train: 1 .image."):
        tile_preparation.prepare(broken, on_error="raise")  # the same folder


def test_tiles_of_another_split_are_refused(split, stored):
    few = dataclasses.replace(split, examples=[split.examples[i] for i in range(3)])
    with pytest.raises(ValueError, match="has tiles of 5 images, but train has 3"):
        batches(few, stored)


@pytest.mark.parametrize("lost", ["label/0.0.0.0", "image/zarr.json", "tiles.json"])
def test_a_lost_file_is_reported_when_tiles_are_opened(copy, lost):
    (copy / lost).unlink()
    with pytest.raises(OSError, match=r"copy: .*; delete this folder, and the tiles"):
        tiles.Tiles(copy)


def test_a_list_without_sizes_is_reported_when_tiles_are_opened(copy):
    path = copy / "tiles.json"
    path.write_text(path.read_text().replace('"sizes"', '"size"'))
    with pytest.raises(OSError, match="'sizes'; delete this folder"):
        tiles.Tiles(copy)


@pytest.mark.parametrize("old, new", [("131", "130"), ("sha256", "sha257")])
def test_a_changed_list_is_reported_when_tiles_are_opened(copy, old, new):
    path = copy / "tiles.json"
    replace_once(path, old, new)
    with pytest.raises(OSError, match=r"tiles.json has changed .*; delete this folder"):
        tiles.Tiles(copy)


def test_older_lists_have_no_digest_and_must_have_the_sizes_of_the_dataset(
    split, stored, monkeypatch, copy
):
    path = copy / "tiles.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert tiles.Tiles(copy).sizes() == stored.sizes() == SIZES
    content["sizes"][2][0] = 130
    path.write_text(json.dumps(content))
    monkeypatch.setattr(tile_preparation.tiles, "Tiles", lambda _: damaged)
    damaged = stored.__class__(copy)
    with pytest.raises(OSError, match="sizes of the images are not those of the data"):
        tile_preparation.prepare(split, on_error="raise")


def test_an_error_of_the_machine_is_not_damage(copy, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError(f"Failed to open: {os.strerror(errno.EMFILE)}")

    monkeypatch.setattr(tiles.ts, "open", fail)
    with pytest.raises(OSError, match="copy: cannot be read .Too many open f") as error:
        tiles.Tiles(copy)
    assert "delete" not in str(error.value)


def test_a_damaged_tile_is_reported_when_it_is_read(copy):
    path = next(x for x in (copy / "image").iterdir() if x.name.startswith("1."))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    image = tiles.Tiles(copy)[1]["image"]
    with pytest.raises(OSError, match="tiles cannot be read .*; delete their folder"):
        for top in (0, TILE):
            for left in (0, TILE, 2 * TILE):
                image[top : top + 1, left : left + 1]
