"""Padding and upsampling layers shared by the segmentation networks."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.drop_connect import DropConnectConv
from tempseg_jax.models.ops import SameConv, by_platform, transposed_conv
from tempseg_jax.models.preprocessing import Preprocessing


def normalize_and_pad(
    image: Array, preprocessing: Preprocessing, *, multiple: int, dtype: DTypeLike
) -> Float[Array, "b h w 3"]:
    """Preprocess RGB images (0 to 255) and pad their sides to multiples of a number.

    Zeros, which are the mean color after preprocessing, are added at the bottom and at
    the right.
    """
    h, w = image.shape[1:3]
    x = preprocessing(image).astype(dtype)
    return jnp.pad(x, ((0, 0), (0, -h % multiple), (0, -w % multiple), (0, 0)))


def score_layer(
    num_classes: int, *, dtype: DTypeLike, drop_connect: float, train: bool, name: str
) -> Callable[[Float[Array, "b h w c"]], Float[Array, "b h w k"]]:
    """Return a 1x1 convolution to class scores, initialized to zero as in the paper."""
    options = {"kernel_init": nn.initializers.zeros, "name": name}
    if not drop_connect:
        return SameConv(num_classes, 1, dtype, **options)
    layer = DropConnectConv(
        num_classes, 1, dtype, rate=drop_connect, activate=False, **options
    )
    return partial(layer, train=train)


def upsample_bilinear(
    x: Float[Array, "b h w c"], *, factor: int
) -> Float[Array, "b h_out w_out c"]:
    """Upsample by bilinear interpolation (half-pixel centers, edges repeated)."""
    return by_platform(
        x,
        cpu=partial(_upsample_by_products, factor=factor),
        default=partial(_upsample_by_neighbors, factor=factor),
    )


def _upsample_by_products(x: Array, *, factor: int) -> Array:
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, factor * h, factor * w, c), method="bilinear")


def _upsample_by_neighbors(x: Array, *, factor: int) -> Array:
    """Add weighted neighbors along each axis: elementwise, without a transposition."""
    return _upsample_axis(2, factor, _upsample_axis(1, factor, x))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _upsample_axis(axis: int, factor: int, x: Array) -> Array:
    """Upsample one axis; the gradient reads that of the result once."""
    y = sum(
        jnp.expand_dims(neighbor, axis + 1) * weight
        for neighbor, weight in zip(
            _neighbors(axis, x), _weights(axis, factor, x), strict=True
        )
    )
    return y.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])


def _neighbors(axis: int, x: Array) -> tuple[Array, Array, Array]:
    """Return the previous, the same and the next entry; the ends are repeated."""
    n = x.shape[axis]
    part = partial(jax.lax.slice_in_dim, axis=axis)
    padded = jnp.concatenate([part(x, 0, 1), x, part(x, n - 1, n)], axis)
    return part(padded, 0, n), x, part(padded, 2, n + 2)


def _weights(axis: int, factor: int, x: Array) -> list[Array]:
    """Return the weights of `_neighbors`, for each of `factor` new positions."""
    position = (np.arange(factor) + 0.5) / factor - 0.5  # in old pixels
    weights = np.maximum(-position, 0), 1 - np.abs(position), np.maximum(position, 0)
    shape = [1] * (x.ndim + 1)
    shape[axis + 1] = factor
    return [jnp.asarray(weight.reshape(shape), x.dtype) for weight in weights]


def _upsample_axis_forward(axis: int, factor: int, x: Array) -> tuple[Array, None]:
    return _upsample_axis(axis, factor, x), None


def _upsample_axis_backward(axis: int, factor: int, _: None, g: Array) -> tuple[Array]:
    n = g.shape[axis] // factor
    small = g.shape[:axis] + (n,) + g.shape[axis + 1 :]
    weights = jnp.stack(_weights(axis, factor, g))
    g = g.reshape(*g.shape[:axis], n, factor, *g.shape[axis + 1 :])
    sums = tuple(jnp.sum(g[None] * weights, axis + 2))
    x = jax.ShapeDtypeStruct(small, g.dtype)
    return jax.linear_transpose(partial(_neighbors, axis), x)(sums)


_upsample_axis.defvjp(_upsample_axis_forward, _upsample_axis_backward)


def bilinear_kernel(size: int) -> Float[np.ndarray, "size size"]:
    """Return the bilinear interpolation filter of Long et al. 2015."""
    f = (size + 1) // 2
    center = f - 1 if size % 2 else f - 0.5
    triangle = 1 - np.abs(np.arange(size) - center) / f
    return np.outer(triangle, triangle).astype(np.float32)


def _bilinear_init(
    key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    """Initialize to bilinear interpolation of each channel by itself."""
    size, _, c_in, c_out = shape
    diagonal = jnp.eye(c_in, c_out, dtype=dtype)[None, None]
    return jnp.asarray(bilinear_kernel(size), dtype)[..., None, None] * diagonal


class LearnedUpsample(nn.Module):
    """Transposed convolution with kernel size 2s and stride s, in sub-pixel form.

    XLA computes a transposed convolution and its gradients many times slower than an
    ordinary convolution (jax #8537). Because the kernel size is twice the stride, each
    output pixel depends on 2x2 input pixels. The same result is therefore a 2x2
    convolution to s*s*c channels followed by depth-to-space. The parameter keeps the
    shape of the transposed convolution's kernel, (2s, 2s, c, c).
    """

    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out c"]:
        """Upsample by s, with the transposed convolution's values and gradients."""
        s, c = self.stride, x.shape[-1]
        kernel = self.param("kernel", _bilinear_init, (2 * s, 2 * s, c, c))
        return transposed_conv(x.astype(self.dtype), kernel.astype(self.dtype))
