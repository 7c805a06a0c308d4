"""The segmentation networks and the discriminators."""

import flax.linen as nn
from jax.typing import DTypeLike

from tempseg_jax.models.critics import (
    FullyConvolutionalDiscriminator,
    LayerNormDiscriminator,
    SpectralNormDiscriminator,
)
from tempseg_jax.models.discriminator import Discriminator
from tempseg_jax.models.fcn import FCN8s
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.models.resnet import ResNet50
from tempseg_jax.models.vgg import VGG16

__all__ = [
    "DISCRIMINATORS",
    "PIXELWISE_DISCRIMINATORS",
    "SEGMENTERS",
    "Discriminator",
    "fcn8s",
    "resnet50",
    "resnet50_c4",
    "resnet50_v15",
    "with_field",
]


def fcn8s(
    *,
    num_classes: int,
    preprocessing: Preprocessing,
    width: float,
    dtype: DTypeLike,
    remat: bool,
) -> nn.Module:
    """FCN-8s on VGG-16: 134.5 M parameters at width 1 (paper, table 4)."""
    backbone = VGG16(width=width, dtype=dtype, remat=remat)
    return FCN8s(backbone, num_classes, preprocessing, dtype)


def resnet50(
    *,
    num_classes: int,
    preprocessing: Preprocessing,
    width: float,
    dtype: DTypeLike,
    remat: bool,
) -> nn.Module:
    """ResNet-50 as in Keras: 23.6 M parameters at width 1 (paper, table 4)."""
    return ResNet50(num_classes, preprocessing, False, width, dtype, remat)


def resnet50_c4(
    *,
    num_classes: int,
    preprocessing: Preprocessing,
    width: float,
    dtype: DTypeLike,
    remat: bool,
) -> nn.Module:
    """`resnet50` without stage 5, at stride 16: 8.6 M parameters at width 1.

    Faster R-CNN's backbone C4 (Ren et al. 2015; He et al. 2017, section 3).
    """
    return ResNet50(num_classes, preprocessing, False, width, dtype, remat, 4)


def resnet50_v15(
    *,
    num_classes: int,
    preprocessing: Preprocessing,
    width: float,
    dtype: DTypeLike,
    remat: bool,
) -> nn.Module:
    """ResNet-50 as in torchvision and timm, for weight files in their format."""
    return ResNet50(num_classes, preprocessing, True, width, dtype, remat)


def with_field(segmenter: nn.Module, field: str, value: object) -> nn.Module | None:
    """Return the network with another value of a field, also in its backbone.

    Returns:
        None if neither of them has the field.
    """
    backbone = getattr(segmenter, "backbone", None)
    changes = {field: value} if hasattr(segmenter, field) else {}
    if hasattr(backbone, field):
        changes["backbone"] = backbone.clone(**{field: value})
    return segmenter.clone(**changes) if changes else None


SEGMENTERS = {
    "fcn8s": fcn8s,
    "resnet50": resnet50,
    "resnet50_c4": resnet50_c4,
    "resnet50_v15": resnet50_v15,
}
"""The values of `model.name`."""

DISCRIMINATORS = {
    "dcgan": Discriminator,
    "dcgan_ln": LayerNormDiscriminator,
    "dcgan_sn": SpectralNormDiscriminator,
    "fcn": FullyConvolutionalDiscriminator,
}
"""The values of `model.discriminator`; each is called with the compute dtype."""

PIXELWISE_DISCRIMINATORS = ("fcn",)
"""Those with a score for each pixel."""
