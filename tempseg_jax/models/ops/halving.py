"""The 4x4 convolution of stride 2 of the discriminators, with fast gradients."""

import flax.linen as nn
import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tempseg_jax.models.ops.convolution import transposed_conv
from tempseg_jax.models.ops.elementwise import add_bias
from tempseg_jax.models.ops.kernel_gradient import kernel_gradient
from tempseg_jax.models.ops.platform import by_platform
from tempseg_jax.models.ops.xla import xla_conv

Pair = tuple[Array, Array]


class HalvingConv(nn.Module):
    """A 4x4 convolution with stride 2 and "SAME" padding.

    On a CPU the gradient with respect to an input of even height and width, which is a
    transposed convolution, is computed in sub-pixel form: XLA's own form takes three
    times as long for the discriminator's first layer.
    """

    channels: int
    dtype: DTypeLike
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, leave_out_bias: bool = False
    ) -> Float[Array, "b h_out w_out d"]:
        """Compute the same as `nn.Conv` with the same parameters."""
        shape = (4, 4, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        even = x.shape[1] % 2 == x.shape[2] % 2 == 0
        halve = _halve_even if even else _halve
        y = halve(x, kernel)
        return y if leave_out_bias else add_bias(y, bias)


def _halve(x: Array, kernel: Array) -> Array:
    return xla_conv(x, kernel, padding="SAME", stride=2)


# `_halve_even` is linear in x and in the kernel. So its gradients for a gradient g of
# its output, `_image_gradient` and `_kernel_gradient`, are linear in both of their
# arguments too, and the gradients of each of the three are the other two. With these
# rules the gradient of a gradient consists of the same fast operations. With the
# derivatives that JAX finds by itself, the gradient of the penalty of `wgan_gp` took
# ten times as long on a CPU.


@jax.custom_vjp
def _halve_even(
    x: Float[Array, "b h w c"], kernel: Float[Array, "4 4 c d"]
) -> Float[Array, "b h_out w_out d"]:
    return _halve(x, kernel)


@jax.custom_vjp
def _image_gradient(
    g: Float[Array, "b h_out w_out d"], kernel: Float[Array, "4 4 c d"]
) -> Float[Array, "b h w c"]:
    b, h, w, _ = g.shape
    image = jax.ShapeDtypeStruct((b, 2 * h, 2 * w, kernel.shape[2]), g.dtype)

    def by_sub_pixels(g: Array, kernel: Array) -> Array:
        return transposed_conv(g, kernel.swapaxes(2, 3))

    def by_transposition(g: Array, kernel: Array) -> Array:
        return jax.linear_transpose(lambda x: _halve(x, kernel), image)(g)[0]

    return by_platform(g, kernel, cpu=by_sub_pixels, default=by_transposition)


@jax.custom_vjp
def _kernel_gradient(
    x: Float[Array, "b h w c"], g: Float[Array, "b h_out w_out d"]
) -> Float[Array, "4 4 c d"]:
    return kernel_gradient(x, g, kernel_size=4, padding=1, stride=2)


def _halve_even_forward(x: Array, kernel: Array) -> tuple[Array, Pair]:
    return _halve_even(x, kernel), (x, kernel)


def _halve_even_backward(residuals: Pair, g: Array) -> Pair:
    x, kernel = residuals
    return _image_gradient(g, kernel), _kernel_gradient(x, g)


def _image_gradient_forward(g: Array, kernel: Array) -> tuple[Array, Pair]:
    return _image_gradient(g, kernel), (g, kernel)


def _image_gradient_backward(residuals: Pair, x: Array) -> Pair:
    g, kernel = residuals
    return _halve_even(x, kernel), _kernel_gradient(x, g)


def _kernel_gradient_forward(x: Array, g: Array) -> tuple[Array, Pair]:
    return _kernel_gradient(x, g), (x, g)


def _kernel_gradient_backward(residuals: Pair, kernel: Array) -> Pair:
    x, g = residuals
    return _image_gradient(g, kernel), _halve_even(x, kernel)


_halve_even.defvjp(_halve_even_forward, _halve_even_backward)
_image_gradient.defvjp(_image_gradient_forward, _image_gradient_backward)
_kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)
