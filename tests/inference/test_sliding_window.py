"""Windows are averaged as by a slow reference, whatever their number and place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import mesh
from tempseg_jax.data import buckets
from tempseg_jax.data.buckets import canvas
from tempseg_jax.data.transforms import PAD_COLOR
from tempseg_jax.inference import sliding_window


@jax.jit
def forward(crops):
    """Return log p that depends on the pixel and on its place in the window."""
    window = crops.shape[1]
    place = jnp.arange(window) / 1000
    place = place[:, None] + place[None, :]
    weight = 0.1 + 0.5 * crops[..., 0] / 255 + place[None]
    return jnp.log(jnp.stack([weight, 1 - weight], axis=-1))


def starts(length, window, stride):
    result, start = [], 0
    while start + window < length:
        result.append(start)
        start += stride
    return [*result, length - window]


def slow_mean(image, *, window, stride):
    """Add up every window, then divide each pixel by its number of windows."""
    h, w = max(len(image), window), max(image.shape[1], window)
    padded = buckets.padded(image, height=h, width=w)
    total, count = np.zeros((h, w, 2)), np.zeros((h, w, 1))
    for top in starts(h, window, stride):
        for left in starts(w, window, stride):
            part = np.s_[top : top + window, left : left + window]
            total[part] += np.exp(np.asarray(forward(padded[part][None]), np.float64))[
                0
            ]
            count[part] += 1
    assert count.min() > 0
    return (total / count)[: image.shape[0], : image.shape[1]]


def all_bands(image, forward, *, window, stride):
    devices = mesh.local_mesh()
    images = buckets.padded(image, height=128, width=128)[None]
    images = sliding_window.at_least_a_window(images, window, PAD_COLOR)
    return list(
        sliding_window.bands(
            mesh.split_batch({"image": images}, devices)["image"],
            np.array([image.shape[:2]]),
            forward,
            window=window,
            stride=stride,
            devices=devices,
        )
    )


@pytest.mark.parametrize(
    ("h", "w", "window", "stride"),
    [
        (50, 70, 32, 20),
        (64, 64, 32, 32),
        (20, 100, 32, 31),
        (35, 33, 32, 1),
        (5, 7, 32, 9),
        (100, 128, 140, 90),
    ],
)
def test_overlapping_windows_are_averaged_as_by_a_slow_reference(h, w, window, stride):
    image = np.random.default_rng(h).integers(0, 256, (h, w, 3), np.uint8)
    bands = all_bands(image, forward, window=window, stride=stride)
    tops, rows = (np.array([b[i][0] for b in bands]) for i in (0, 1))
    assert list(tops) == [0, *np.cumsum(rows)[:-1]]
    p = [jax.nn.softmax(b.logits)[0, : b.rows[0], :w] for b in bands]
    np.testing.assert_allclose(
        np.concatenate(p)[:h], slow_mean(image, window=window, stride=stride), atol=1e-6
    )


def test_a_pixel_in_a_single_window_has_the_log_p_of_the_network():
    image = np.random.default_rng(0).integers(0, 256, (32, 60, 3), np.uint8)
    (band,) = all_bands(image, forward, window=32, stride=28)
    alone = forward(image[None, :, :32])
    np.testing.assert_array_equal(band.logits[0, :, :28], alone[0, :, :28])


def test_windows_far_below_float32s_smallest_probability_are_averaged():
    @jax.jit
    def certain(crops):
        """Return log p = -200 where the window's first pixel is 0, and else -300."""
        low = jnp.where(crops[:, :1, :1, 0] == 0, -200.0, -300.0)
        low = jnp.broadcast_to(low, crops.shape[:3])
        return jnp.stack([jnp.zeros_like(low), low], axis=-1)

    image = np.zeros((32, 40, 3), np.uint8)
    image[:, 8:] = 255
    (band,) = all_bands(image, certain, window=32, stride=8)
    log_p = jax.nn.log_softmax(band.logits)[0, 0, :40, 1]
    np.testing.assert_allclose(log_p[:8], -200)
    np.testing.assert_allclose(log_p[8:32], -200 - np.log(2), rtol=1e-6)
    np.testing.assert_allclose(log_p[32:], -300)


def test_images_of_one_canvas_share_all_programs():
    programs = (
        *(sliding_window._crops, sliding_window._no_windows, sliding_window._add),
        *(sliding_window._moved_up, sliding_window.rows_at, sliding_window._paste),
    )

    def compiled():
        return [program._cache_size() for program in programs]

    def paste_all(h, w):
        image = np.zeros((h, w, 3), np.uint8)
        devices = mesh.local_mesh()
        labels = jnp.zeros((1, 128, 128), jnp.uint8)
        labels = mesh.split_batch({"label": np.asarray(labels)}, devices)["label"]
        for band in all_bands(image, forward, window=32, stride=20):
            part = sliding_window.rows_at(labels, band.tops, window=32, devices=devices)
            labels = sliding_window.paste(labels, part, band, devices=devices)

    paste_all(50, 70)
    before = compiled()
    for size in ((60, 100), (33, 90), (128, 128), (70, 50)):
        assert canvas(size) == (128, 128)
        paste_all(*size)
    assert compiled() == before


def test_windows_are_run_in_batches_of_one_shape():
    shapes = set()

    def recording_forward(crops):
        shapes.add(crops.shape)
        return forward(crops)

    for size in ((300, 2100), (200, 1500)):
        image = np.zeros((*size, 3), np.uint8)
        images = buckets.padded(image, height=512, width=2176)[None]
        devices = mesh.local_mesh()
        for _ in sliding_window.bands(
            mesh.split_batch({"image": images}, devices)["image"],
            np.array([size]),
            recording_forward,
            window=256,
            stride=200,
            devices=devices,
        ):
            pass
    assert shapes == {(11, 256, 256, 3)}
