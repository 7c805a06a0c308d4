"""Resampling and convolutions shared by the networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.ops import transposed_conv
from tempseg_jax.models.preprocessing import Preprocessing

OUTPUT_STRIDE = 32
"""Every backbone halves its input five times."""


def normalize_and_pad(
    image: Array, preprocessing: Preprocessing, *, dtype: DTypeLike
) -> Float[Array, "b h w 3"]:
    """Preprocess RGB; pad with the mean to multiples of 32, bottom and right."""
    h, w = image.shape[1:3]
    x = preprocessing(image).astype(dtype)
    return jnp.pad(
        x, ((0, 0), (0, -h % OUTPUT_STRIDE), (0, -w % OUTPUT_STRIDE), (0, 0))
    )


def upsample_bilinear(
    x: Float[Array, "b h w c"], *, factor: int
) -> Float[Array, "b h_out w_out c"]:
    """Enlarge by a fixed bilinear kernel (half-pixel centers, edges repeated)."""
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, factor * h, factor * w, c), method="bilinear")


def bilinear_kernel(size: int) -> Float[np.ndarray, "size size"]:
    """The bilinear interpolation filter of Long et al. 2015."""
    f = (size + 1) // 2
    center = f - 1 if size % 2 else f - 0.5
    triangle = 1 - np.abs(np.arange(size) - center) / f
    return np.outer(triangle, triangle).astype(np.float32)


def _bilinear_init(
    key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    """Class c of the output is the interpolated class c of the input alone."""
    size, _, c_in, c_out = shape
    diagonal = jnp.eye(c_in, c_out, dtype=dtype)[None, None]
    return jnp.asarray(bilinear_kernel(size), dtype)[..., None, None] * diagonal


class LearnedUpsample(nn.Module):
    """Transposed convolution, kernel 2s, stride s, computed in its sub-pixel form.

    XLA runs a transposed convolution and its gradients many times slower than a plain
    one (jax #8537). With a kernel of twice the stride each output pixel sees 2x2 input
    pixels, so the same map is a 2x2 convolution to s*s*c channels followed by
    depth-to-space. The parameter keeps the shape of the transposed kernel.
    """

    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out c"]:
        """Enlarge s times; values and gradients of the transposed convolution."""
        s, c = self.stride, x.shape[-1]
        kernel = self.param("kernel", _bilinear_init, (2 * s, 2 * s, c, c))
        return transposed_conv(x.astype(self.dtype), kernel.astype(self.dtype))
