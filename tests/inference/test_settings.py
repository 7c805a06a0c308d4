"""Settings of sliding windows and of test-time augmentation."""

import pytest

from tempseg_jax.inference.settings import (
    LARGEST_WHOLE,
    InferenceSettings,
    parse_scales,
)


def test_large_images_run_in_windows_by_default_and_cityscapes_whole():
    settings = InferenceSettings(window=None, stride=None, scales=(1.0,), flip=False)
    assert settings.windows(1024, 2048) is None and 1024 * 2048 == LARGEST_WHOLE
    assert settings.windows(4000, 6000) == (1024, 768)
    # The canvas of this image is larger, and evaluation sees only canvases.
    assert 1000 * 2090 < LARGEST_WHOLE and settings.windows(1000, 2090) == (1024, 768)
    thirds = InferenceSettings(window=96, stride=None, scales=(1.0,), flip=False)
    assert thirds.windows(10, 10) == (96, 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 8}, "window: 8"),
        ({"window": 64, "stride": 65}, "stride: 65 .* leaves gaps"),
        ({"window": 64, "stride": 0}, "stride: 0"),
        ({"stride": 10}, "without a window size"),
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, 0.0)}, "scales"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    plain = {"window": None, "stride": None, "scales": (1.0,), "flip": False}
    with pytest.raises(ValueError, match=message):
        InferenceSettings(**plain | changes)


def test_scales_that_are_not_numbers_are_refused():
    assert parse_scales(["0.5", "1"]) == (0.5, 1.0)
    with pytest.raises(ValueError, match="wide"):
        parse_scales(["wide"])
