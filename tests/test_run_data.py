"""The images of a run: the numbers that are compared, and their lists."""

import numpy as np
import pytest

from tempseg_jax.builders.run_data import RunData
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.subset import divide, evenly_spaced
from tempseg_jax.data.unlabeled import Unlabeled
from tests.support import load_config


def make_split(name, count, *, size):
    records = [{"id": f"{name}{i}", "image": b"", "label": b""} for i in range(count)]
    palette = np.zeros((2, 3), np.uint8)
    return Split("tiny", name, records, ("a", "b"), palette, sizes={size: count})


@pytest.fixture
def data():
    train = make_split("train", 8, size=(10, 20))
    labeled, others = divide(train, fraction=0.25, seed=0)
    val = evenly_spaced(make_split("val", 6, size=(5, 4)), 3)
    return RunData(train, labeled, None, Unlabeled(others, None, 4), val)


def test_the_numbers_are_of_the_images_used_and_of_the_pixels_of_whole_splits(data):
    assert data.numbers() == {
        "labeled_images": 2,
        "pixels_of_train_split": 8 * 200,
        "val_images": 3,
        "pixels_of_val_split": 6 * 20,
        "unlabeled_images": 6,
        "pixels_of_unlabeled_split": 8 * 200,  # they are a part of train
    }


def test_lists_that_another_config_wrote_are_deleted(data, tmp_path):
    config = load_config("demo")
    config.data.labeled_fraction = 0.25
    data.write_lists(config, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"labeled_images.txt", "unlabeled_images.txt"}
    assert (tmp_path / "labeled_images.txt").read_text().count("train") == 2
    config.data.labeled_fraction = 1.0
    config.data.train_fraction = 0.5
    data._replace(unlabeled=None).write_lists(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train_images.txt"]
