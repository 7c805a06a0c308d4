"""Sliding-window inference and test-time augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.inference import sliding_window
from tempseg_jax.inference.sliding_window import LARGEST_WHOLE, InferenceSettings
from tests.support import make_segmenter


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
    assert sliding_window.parse_scales(["0.5", "1"]) == (0.5, 1.0)
    with pytest.raises(ValueError, match="wide"):
        sliding_window.parse_scales(["wide"])


@pytest.fixture(scope="module")
def network():
    segmenter = make_segmenter("fcn8s", num_classes=3)
    image = jnp.zeros((1, 64, 64, 3), jnp.uint8)
    variables = jax.jit(lambda key: segmenter.init(key, image, train=False))(
        jax.random.key(0)
    )
    variables = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(2), x.shape), variables
    )
    log_p = sliding_window.log_probabilities
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    return image, lambda image, scales=(1.0,), flip=False: np.asarray(
        log_p(variables, image, segmenter=segmenter, scales=scales, flip=flip)
    )


def test_without_augmentation_the_result_is_the_softmax_of_the_logits(network):
    image, log_p = network
    p = np.exp(log_p(image))
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-5)
    assert p.std() > 0.01


def test_with_flip_the_result_of_the_mirror_image_is_mirrored(network):
    image, log_p = network
    flipped = log_p(image, flip=True)
    mirrored = log_p(image[:, :, ::-1], flip=True)
    np.testing.assert_allclose(mirrored[:, :, ::-1], flipped, atol=1e-5)
    assert np.abs(log_p(image) - flipped).max() > 1e-3


def test_several_scales_are_the_mean_of_each_alone(network):
    image, log_p = network
    alone = [np.exp(log_p(image, scales=(scale,), flip=True)) for scale in (0.5, 1.0)]
    together = np.exp(log_p(image, scales=(0.5, 1.0), flip=True))
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-5)
    assert together.shape == (*image.shape[:3], 3)
