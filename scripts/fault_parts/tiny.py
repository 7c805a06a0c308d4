"""Networks of a few hundred parameters, for trainings that are killed.

A killed training tests files and processes, not its networks. Tracing, compiling and
saving FCN-8s and the DCGAN discriminator would take most of the time of an injection.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from tempseg_jax.models import DISCRIMINATORS, SEGMENTERS
from tempseg_jax.models.batch_norm import BatchNorm, normalized_conv
from tempseg_jax.models.layers import normalize_and_pad
from tempseg_jax.models.ops import HalvingConv, SameConv
from tempseg_jax.models.preprocessing import Preprocessing

NAME = "tiny"
"""The value of model.name and of model.discriminator."""


class TinySegmenter(nn.Module):
    """One 3x3 convolution, and the scores as a 1x1 convolution of its features."""

    num_classes: int  # without the ignore label
    preprocessing: Preprocessing
    width: float
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(
        self, image: UInt8[Array, "b h w 3"], *, train: bool
    ) -> Float[Array, "b h w {self.num_classes}"]:
        """Return float32 logits."""
        del train
        x = normalize_and_pad(image, self.preprocessing, multiple=1, dtype=self.dtype)
        x = nn.relu(SameConv(8, 3, self.dtype, name="conv")(x))
        logits = SameConv(self.num_classes, 1, self.dtype, name="score")(x)
        return logits.astype(jnp.float32)


class TinyDiscriminator(nn.Module):
    """Two 4x4 convolutions of stride 2, with BatchNorm after the first."""

    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, probabilities: Float[Array, "b h w k"], *, train: bool
    ) -> Float[Array, "b h_out w_out 1"]:
        """Return a map of linear scores, high where the input looks real."""
        x = probabilities.astype(self.dtype)
        conv = HalvingConv(8, self.dtype, name="conv1")
        norm = BatchNorm(1e-5, self.dtype, negative_slope=0.2, name="bn1")
        x = normalized_conv(conv, norm, x, train=train)
        return HalvingConv(1, self.dtype, name="conv2")(x).astype(jnp.float32)


def register() -> None:
    """Make both available by their name, in this process and those forked from it."""
    SEGMENTERS[NAME] = TinySegmenter
    DISCRIMINATORS[NAME] = TinyDiscriminator
