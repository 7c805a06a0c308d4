import json
import random
import struct

import h5py
import numpy as np
import pytest

from tempseg_jax.models.weights.files import read_index, read_tensors
from tests.support import TEST_DATA


def read(path):
    names = list(read_index(path).shapes)
    return dict(read_tensors(path, names))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        for name, shape in (("conv1", (3, 3, 3, 4)), ("conv2", (1, 1, 4, 5))):
            values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
            file[f"{name}/{name}/kernel:0"] = values
            file[f"{name}/{name}/bias:0"] = np.zeros(shape[-1], np.float32)
    assert set(read(path)) == {
        f"conv{i}/{role}" for i in (1, 2) for role in ("kernel", "bias")
    }
    return path


def test_mutated_hdf5_is_read_or_refused_by_one_line_with_its_name(weights, tmp_path):
    whole, path, refused = weights.read_bytes(), tmp_path / "mutated.h5", 0
    for seed in range(300):
        random_, data = random.Random(seed), bytearray(whole)
        for _ in range(random_.choice((1, 2, 8, 32))):
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        path.write_bytes(data)
        try:
            read(path)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 50


def test_a_safetensors_file_in_bfloat16_is_read_as_float32(tmp_path):
    tensor = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    head = json.dumps({"weight": tensor}).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"\0\x3f\0\x40")
    weight = read(path)["weight"]
    assert weight.dtype == np.float32
    assert weight.tolist() == [0.5, 2.0]


def test_a_file_that_breaks_the_first_release_is_refused():
    path = TEST_DATA / "broken" / "badw_102.h5"
    if not path.exists():
        pytest.skip(f"{path}: this file does not exist")
    with pytest.raises(ValueError, match="badw_102.h5"):
        read(path)
