"""What a network expects of its input: a part of the network, never of the data."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


class Preprocessing(NamedTuple):
    """The conventions that one set of ImageNet weights was trained under.

    They travel together because mixing two sets costs several mIoU without an error:
    `PRETRAINED` (pretrained.py) binds one to each source, the segmenter applies it, and
    the checkpoint keeps it.
    """

    channel_order: str  # "RGB" or "BGR"
    mean: tuple[float, float, float]  # in `channel_order`, gray levels 0 to 255
    std: tuple[float, float, float]  # in `channel_order`, gray levels 0 to 255
    batch_norm_epsilon: float

    @classmethod
    def restored(cls, fields: dict[str, Any]) -> "Preprocessing":
        """Return it from JSON, which has no tuples: a module must be hashable."""
        return cls(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        )

    def __call__(self, image: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Return the float32 input of the first convolution for RGB gray levels."""
        if self.channel_order == "BGR":
            image = image[..., ::-1]
        mean, std = jnp.array([self.mean, self.std])[:, None, None, None]
        return (image.astype(jnp.float32) - mean) / std


CAFFE = Preprocessing(
    "BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0), batch_norm_epsilon=1.001e-5
)
"""Keras' VGG-16 and ResNet-50, after the Caffe models they were converted from."""

TORCHVISION = Preprocessing(
    "RGB",
    (255 * 0.485, 255 * 0.456, 255 * 0.406),
    (255 * 0.229, 255 * 0.224, 255 * 0.225),
    batch_norm_epsilon=1e-5,
)
"""torchvision and timm (`tv_in1k`); also what a network from scratch is given."""
