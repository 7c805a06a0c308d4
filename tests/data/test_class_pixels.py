"""Class weights, compared with their definitions on three images."""

import dataclasses
import errno
from pathlib import Path

import numpy as np
import pytest

from tempseg_jax import builders
from tempseg_jax.data import class_pixels, inspection
from tempseg_jax.data.subset import nested_subset

COUNTS = np.array([[80, 20, 0, 0], [60, 0, 40, 0], [100, 0, 0, 0]])


def test_inverse_frequency_gives_every_class_the_same_total_weight():
    weights = class_pixels.inverse_frequency(COUNTS)
    np.testing.assert_allclose(weights, [300 / 240 / 3, 300 / 20 / 3, 300 / 40 / 3, 0])
    np.testing.assert_allclose(weights[:3] * [240, 20, 40], 100)


def test_median_frequency_counts_only_images_that_have_the_class():
    f = np.array([240 / 300, 20 / 100, 40 / 100])
    expected = np.append(0.4 / f, 0)
    weights = class_pixels.median_frequency(COUNTS)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_effective_number_is_its_formula_up_to_a_factor():
    raw = (1 - 0.999) / (1 - 0.999 ** np.array([3, 1, 1]))
    weights = class_pixels.effective_number(COUNTS)
    np.testing.assert_allclose(weights[:3] / weights[0], raw / raw[0], rtol=1e-6)
    assert np.sum(weights * COUNTS.sum(axis=0)) == pytest.approx(300)


def test_counts_are_those_of_the_report_and_are_stored_with_the_dataset(
    demo_config, monkeypatch
):
    split = builders.load_split(demo_config, "val")
    counts = class_pixels.count(split)
    report = inspection.inspect(split)
    np.testing.assert_array_equal(counts.sum(axis=0), report.pixels[:8])
    np.testing.assert_array_equal(np.sum(counts > 0, axis=0), report.images[:8])
    monkeypatch.setattr(class_pixels, "decode", None)  # it is not read again
    np.testing.assert_array_equal(class_pixels.count(split), counts)
    part = nested_subset(split, fraction=0.25, seed=3)
    rows = class_pixels.of_subset(counts, part)
    assert len(rows) == len(part.examples)
    np.testing.assert_array_equal(rows, counts[part.examples.indices])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "shape"])
def test_counts_of_a_damaged_file_are_counted_again(
    demo_config, monkeypatch, tmp_path, damage
):
    split = builders.load_split(demo_config, "val")
    path = tmp_path / "counts.npz"
    monkeypatch.setattr(class_pixels, "_file", lambda split: path)
    expected = class_pixels.count(split)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = {"flip": data, "cut": data[: len(data) // 2], "empty": b""}
    if damage == "shape":
        np.savez(path, counts=expected[:-1])
    else:
        path.write_bytes(damaged[damage])
    np.testing.assert_array_equal(class_pixels.count(split), expected)


def test_counts_that_cannot_be_stored_are_used_with_a_warning(
    demo_config, monkeypatch, caplog
):
    split = builders.load_split(demo_config, "val")
    expected = class_pixels.count(split)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(class_pixels, "_file", lambda split: Path("/prepared/x.npz"))
    monkeypatch.setattr(class_pixels.atomic, "replacing", refuse)
    np.testing.assert_array_equal(class_pixels.count(split), expected)
    assert "/prepared/x.npz cannot be written (Permission denied)" in caplog.text


def test_given_weights_must_be_one_for_each_class(demo_config):
    split = builders.load_split(demo_config, "val")
    demo_config.objective.class_weights = "given"
    for unusable in ((1,) * 7, (0,) * 8, (1,) * 7 + (np.inf,), (1,) * 7 + (-1,)):
        demo_config.objective.given_class_weights = unusable
        with pytest.raises(ValueError, match="given_class_weights: .* 8 numbers"):
            builders.load_class_weights(demo_config, split)
    demo_config.objective.given_class_weights = tuple(range(8))
    weights = builders.load_class_weights(demo_config, split)
    np.testing.assert_array_equal(weights, np.arange(8))
    small = dataclasses.replace(split, class_names=("a",))
    with pytest.raises(ValueError, match="1 numbers"):
        builders.load_class_weights(demo_config, small)
