import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.inference import sliding_window
from tempseg_jax.inference.sliding_window import LARGEST_WHOLE, InferenceSettings, bands
from tests.support import make_segmenter


def forward(crops):
    """Probabilities that depend on the pixel and on where in the window it is."""
    crops = np.asarray(crops, np.float32) / 255
    rows, columns = np.mgrid[: crops.shape[1], : crops.shape[2]] / 1000
    weight = crops[..., 0] + rows + columns
    return jnp.asarray(np.stack([weight, 1 - weight], axis=-1), jnp.float32)


def starts(length, window, stride):
    found, at = [], 0
    while at + window < length:
        found.append(at)
        at += stride
    return [*found, length - window]


def slow_mean(image, *, window, stride):
    """Visit every window, then divide every pixel by the windows that saw it."""
    h, w = max(len(image), window), max(image.shape[1], window)
    canvas = sliding_window.padded(image, height=h, width=w)
    total, seen = np.zeros((h, w, 2)), np.zeros((h, w, 1))
    for top in starts(h, window, stride):
        for left in starts(w, window, stride):
            part = np.s_[top : top + window, left : left + window]
            total[part] += np.asarray(forward(canvas[part][None]))[0]
            seen[part] += 1
    assert seen.min() > 0
    return (total / seen)[: image.shape[0], : image.shape[1]]


@pytest.mark.parametrize(
    ("h", "w", "window", "stride"),
    [
        (50, 70, 32, 20),
        (64, 64, 32, 32),
        (20, 100, 32, 31),
        (33, 33, 32, 1),
        (5, 7, 32, 9),
    ],
)
def test_windows_average_as_the_slow_reference_does(h, w, window, stride):
    image = np.random.default_rng(h).integers(0, 256, (h, w, 3), np.uint8)
    found = list(bands(image, forward, window=window, stride=stride, devices=1))
    assert [top for top, _ in found] == np.cumsum([0] + [len(p) for _, p in found])[
        :-1
    ].tolist()
    together = np.concatenate([p for _, p in found])
    np.testing.assert_allclose(
        together, slow_mean(image, window=window, stride=stride), atol=1e-6
    )


def test_windows_of_one_image_have_one_shape_and_bands_are_no_higher():
    shapes = set()

    def watched(crops):
        shapes.add(crops.shape)
        return forward(crops)

    image = np.zeros((300, 2100, 3), np.uint8)
    heights = [
        len(p) for _, p in bands(image, watched, window=512, stride=300, devices=2)
    ]
    assert shapes == {(8, 512, 512, 3)}
    assert max(heights) <= 512


def test_large_images_get_windows_unasked_and_cityscapes_does_not():
    settings = InferenceSettings(window=None, stride=None, scales=(1.0,), flip=False)
    assert settings.windows(1024, 2048) is None and 1024 * 2048 == LARGEST_WHOLE
    assert settings.windows(4000, 6000) == (1024, 768)
    thirds = InferenceSettings(window=96, stride=None, scales=(1.0,), flip=False)
    assert thirds.windows(10, 10) == (96, 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 8}, "window: 8"),
        ({"window": 64, "stride": 65}, "stride: 65 leaves gaps"),
        ({"window": 64, "stride": 0}, "stride: 0"),
        ({"stride": 10}, "no window"),
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, 0.0)}, "scales"),
    ],
)
def test_views_that_cannot_be_are_refused(changes, message):
    plain = {"window": None, "stride": None, "scales": (1.0,), "flip": False}
    with pytest.raises(ValueError, match=message):
        InferenceSettings(**plain | changes)


def test_scales_that_are_no_numbers_are_refused():
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
    log_p = jax.jit(
        sliding_window.log_probabilities,
        static_argnames=("segmenter", "scales", "flip"),
    )
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    return image, lambda image, scales=(1.0,), flip=False: np.asarray(
        log_p(variables, image, segmenter=segmenter, scales=scales, flip=flip)
    )


def test_one_view_is_the_softmax_of_the_logits(network):
    image, log_p = network
    p = np.exp(log_p(image))
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-5)
    assert p.std() > 0.01


def test_mirrored_views_make_the_answer_mirror_with_the_image(network):
    image, log_p = network
    found = log_p(image, flip=True)
    mirrored = log_p(image[:, :, ::-1], flip=True)
    np.testing.assert_allclose(mirrored[:, :, ::-1], found, atol=1e-5)
    assert np.abs(log_p(image) - found).max() > 1e-3


def test_several_views_are_the_mean_of_each_alone(network):
    image, log_p = network
    every = [np.exp(log_p(image, scales=(scale,), flip=True)) for scale in (0.5, 1.0)]
    found = np.exp(log_p(image, scales=(0.5, 1.0), flip=True))
    np.testing.assert_allclose(found, np.mean(every, axis=0), atol=1e-5)
    assert found.shape == (*image.shape[:3], 3)
