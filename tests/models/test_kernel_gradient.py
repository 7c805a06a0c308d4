"""The kernel gradient in parts is that of the whole, whatever the parts are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tempseg_jax.models import ops
from tempseg_jax.models.ops import kernel_gradient


def set_part_pixels(monkeypatch, pixels, *, stride):
    """Let a part have so many pixels of an output of 32 channels, from 3 channels."""
    channels = 3 * stride**2 + 32
    monkeypatch.setattr(kernel_gradient, "_PART_BYTES", 4 * channels * pixels)


@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation"), [(3, 1, 1), (3, 1, 2), (7, 2, 1)]
)
@pytest.mark.parametrize("pixels", [700, 2200, 10**6])  # rows, two images, the whole
def test_a_convolution_has_the_gradients_of_linen(
    kernel_size, stride, dilation, pixels, monkeypatch
):
    set_part_pixels(monkeypatch, pixels, stride=stride)
    own = ops.SameConv(32, kernel_size, jnp.float32, stride, False, dilation=dilation)
    linen = nn.Conv(
        32,
        (kernel_size, kernel_size),
        strides=stride,
        padding=dilation * (kernel_size // 2),
        kernel_dilation=dilation,
        use_bias=False,
    )
    assert_same_gradients(own, linen, size=(33 * stride, 32 * stride + stride - 1))


@pytest.mark.parametrize("pixels", [700, 2200])
def test_a_halving_convolution_has_the_gradients_of_linen(pixels, monkeypatch):
    set_part_pixels(monkeypatch, pixels, stride=2)
    own = ops.HalvingConv(32, jnp.float32)
    assert_same_gradients(own, nn.Conv(32, (4, 4), strides=2), size=(66, 64))


def test_a_halving_convolution_of_many_channels_has_the_gradients_of_linen():
    own = ops.HalvingConv(256, jnp.float32)
    assert_same_gradients(own, nn.Conv(256, (4, 4), strides=2), size=(6, 4))


def assert_same_gradients(own, linen, *, size):
    x = jax.random.normal(jax.random.key(0), (5, *size, 3))
    variables = own.init(jax.random.key(1), x)
    weights = jax.random.normal(jax.random.key(2), own.apply(variables, x).shape)

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(module):
        return jax.vjp(module.apply, variables, x)[1](weights)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3, rtol=1e-4),
        gradients(own),
        gradients(linen),
    )


@pytest.mark.parametrize(
    ("shape", "pixels"), [((5, 10, 7, 1), 140), ((3, 10, 7, 1), 20), ((2, 9, 7, 1), 1)]
)
def test_every_pixel_is_in_one_part(shape, pixels):
    seen = np.zeros(shape[:2])
    sizes = []
    for images, first, end in kernel_gradient._parts(jnp.zeros(shape), pixels):
        seen[images, first:end] += 1
        sizes.append(seen[images, first:end].size * shape[2])
    assert (seen == 1).all()
    assert max(sizes) <= pixels + shape[2]  # a number of whole rows


def test_small_images_narrow_outputs_and_small_batches_are_computed_at_once():
    def parts(b, size, c, d):
        x, g = jnp.zeros((b, size, size, c)), jnp.zeros((b, size, size, d))
        return kernel_gradient._pixels_of_part(x, g, 1)

    assert parts(4, 160, 64, 64) == 4 * 160 * 160 // 16
    assert parts(4, 80, 64, 128) == 1_500_000 // (4 * 192)
    assert parts(4, 31, 64, 64) is None
    assert parts(4, 160, 64, 16) is None
    assert parts(1, 40, 64, 64) is None
    assert parts(4, 40, 512, 512) is None  # its kernel is too large to be added up
