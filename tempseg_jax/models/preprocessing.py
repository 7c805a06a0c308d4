"""Input preprocessing: part of the network, not of the data pipeline."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


class Preprocessing(NamedTuple):
    """The preprocessing that one set of ImageNet weights was trained with.

    These values are kept together because a mixture of two sets costs several points of
    mIoU without raising an error. `PRETRAINED` (weights/catalog.py) assigns one
    preprocessing to each source of weights, the segmenter applies it, and the
    checkpoint stores it.
    """

    channel_order: str  # "RGB" or "BGR"
    mean: tuple[float, float, float]  # in `channel_order`, for values 0 to 255
    std: tuple[float, float, float]  # in `channel_order`, for values 0 to 255
    batch_norm_epsilon: float

    @classmethod
    def restored(cls, fields: dict[str, Any]) -> "Preprocessing":
        """Return a preprocessing from JSON fields, with lists converted to tuples.

        JSON has no tuples, and a Flax module's fields must be hashable.
        """
        return cls(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        )

    def __call__(self, image: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Convert RGB images (0 to 255) to the input of the first convolution."""
        if self.channel_order == "BGR":
            image = image[..., ::-1]
        mean, std = jnp.array([self.mean, self.std])[:, None, None, None]
        return (image.astype(jnp.float32) - mean) / std


CAFFE = Preprocessing(
    "BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0), batch_norm_epsilon=1.001e-5
)
"""For Keras' VGG-16 and ResNet-50; the convention of the original Caffe models."""

TORCHVISION = Preprocessing(
    "RGB",
    (255 * 0.485, 255 * 0.456, 255 * 0.406),
    (255 * 0.229, 255 * 0.224, 255 * 0.225),
    batch_norm_epsilon=1e-5,
)
"""For torchvision and timm (`tv_in1k`); also for a network trained from scratch."""

TORCHVISION_MOBILENET = TORCHVISION._replace(batch_norm_epsilon=1e-3)
"""For torchvision's MobileNetV3; timm's has the epsilon of `TORCHVISION`."""
