"""Padding and upsampling layers shared by the segmentation networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.ops import transposed_conv
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


def upsample_bilinear(
    x: Float[Array, "b h w c"], *, factor: int
) -> Float[Array, "b h_out w_out c"]:
    """Upsample by bilinear interpolation (half-pixel centers, edges repeated)."""
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, factor * h, factor * w, c), method="bilinear")


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
