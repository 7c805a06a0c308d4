import io
import random

import numpy as np
import pytest
import scipy.io

from tempseg_jax.data.sources.mat_file import read_field
from tests import miniatures


def save(fields, *, compressed):
    stream = io.BytesIO()
    variables = {"other": np.eye(3), "GTcls": fields}
    scipy.io.savemat(stream, variables, do_compression=compressed)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2), (20, 31)])
def test_a_field_is_read_as_scipy_wrote_it(shape, dtype, compressed):
    label = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    fields = {
        "Boundaries": np.zeros((2, 2), object),
        "Segmentation": label,
        "CategoriesPresent": np.arange(3),
    }
    data = save(fields, compressed=compressed)
    actual = read_field(data, "GTcls", "Segmentation")
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, label)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"Boundaries": 0}, "it has no GTcls.Segmentation"),
        ({"Segmentation": "text"}, "it is no matrix of real numbers"),
        ({"Segmentation": np.full((2, 2), 256)}, "no integers from 0 to 255"),
        ({"Segmentation": np.full((2, 2), 0.5)}, "no integers from 0 to 255"),
        ({"Segmentation": np.full((2, 2), -1)}, "no integers from 0 to 255"),
    ],
)
def test_other_contents_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        read_field(save(fields, compressed=False), "GTcls", "Segmentation")


def test_a_bomb_is_refused_before_it_is_unpacked():
    fields = {"Segmentation": np.zeros((9000, 9000), np.uint8)}
    with pytest.raises(ValueError, match="unpacks to more than"):
        read_field(save(fields, compressed=True), "GTcls", "Segmentation")


def test_a_mutated_file_is_read_or_refused_by_a_value_error():
    whole = miniatures.mat(miniatures.mask())
    refused = 0
    for seed in range(1000):
        random_, data = random.Random(seed), bytearray(whole)
        for _ in range(random_.choice((1, 1, 2, 8))):
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        if random_.random() < 0.2:
            data = data[: random_.randrange(len(data))]
        try:
            read_field(bytes(data), "GTcls", "Segmentation")
        except ValueError:
            refused += 1
    assert refused > 500
