"""Test-time augmentation: scales and flipping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.inference import tta
from tests.support import make_segmenter


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
    log_p = tta.log_probabilities
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
