import numpy as np
import pytest

from tempseg_jax.data import codec, inspection
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.labels import VOID_COLOR
from tests import miniatures


@pytest.fixture
def split():
    label = np.full((20, 30), 255, np.uint8)
    label[:10] = 0
    label[:5, :6] = 1
    record = {
        "id": "good",
        "image": miniatures.jpeg(),
        "label": codec.encode_label(label),
    }
    undecodable = record | {"id": "bad", "image": b""}
    palette = np.zeros((2, 3), np.uint8)
    return Split(
        "tiny", "train", [record, undecodable, record], ("sky", "sea"), palette
    )


def test_pixels_images_sizes_and_problems_are_counted(split):
    report = inspection.inspect(split)
    assert list(report.pixels[[0, 1, 255]]) == [540, 60, 600]
    assert list(report.images[[0, 1, 255]]) == [2, 2, 2]
    assert report.sizes == {(20, 30): 2}
    (problem,) = report.problems
    assert "bad" in problem and "empty (0 bytes)" in problem
    text = "\n".join(report.lines())
    assert "2 images of 1 size: 30x20 (2)" in text and "50.00%" in text


def test_a_grid_has_each_image_next_to_its_colored_label():
    batch = {
        "image": np.full((3, 8, 8, 3), 9, np.uint8),
        "label": np.ones((3, 8, 8), np.uint8),
    }
    palette = np.array([(0, 0, 0), (1, 2, 3)], np.uint8)
    picture = inspection.grid(batch, palette=palette, columns=2)
    assert picture.shape == (24, 40, 3)
    assert (picture[:8, :8] == 9).all() and (picture[:8, 8:16] == (1, 2, 3)).all()
    assert (picture[12:, 20:] == 255).all()


def test_the_legend_has_the_color_of_every_class_and_void_below_the_picture():
    palette = np.array([(10, 20, 30), (200, 100, 0)], np.uint8)
    picture = np.full((50, 120, 3), 9, np.uint8)
    names = ["a class with a long name", "sky"]
    legend = inspection.with_legend(picture, names=names, palette=palette)
    np.testing.assert_array_equal(legend[:50], picture)
    for color in (*palette.tolist(), VOID_COLOR):
        assert ((legend[50:] == color).all(axis=-1).sum()) > 99, color


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        inspection.save_grid(picture, str(tmp_path / "file/grid.png"))
    with pytest.raises(OSError, match="grid.xyz: cannot be written"):
        inspection.save_grid(picture, str(tmp_path / "grid.xyz"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    inspection.save_grid(picture, str(tmp_path / "new/grid.png"))
    assert (tmp_path / "new/grid.png").is_file()
