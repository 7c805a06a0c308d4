"""The segmentation networks and the discriminators."""

from functools import partial
from typing import Any

import flax.linen as nn
from jax.typing import DTypeLike

from tempseg_jax.models.discriminators import (
    DCGANDiscriminator,
    FullyConvolutionalDiscriminator,
    LayerNormDiscriminator,
    SpectralNormDiscriminator,
)
from tempseg_jax.models.fcn import FCN8s
from tempseg_jax.models.mobilenet import MobileNetV3
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.models.resnet import RESNET50, RESNET101, ResNet
from tempseg_jax.models.segmenter import BackboneAndHead
from tempseg_jax.models.vgg import VGG16

__all__ = [
    "BATCH_NORM_DISCRIMINATORS",
    "DISCRIMINATORS",
    "PIXELWISE_DISCRIMINATORS",
    "SEGMENTERS",
    "DCGANDiscriminator",
    "fcn8s",
    "mobilenet_v3_large",
    "resnet",
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


def resnet(
    *,
    num_classes: int,
    preprocessing: Preprocessing,
    width: float,
    dtype: DTypeLike,
    remat: bool,
    blocks: tuple[int, ...],
    v15: bool,
    **fields: Any,
) -> BackboneAndHead:
    """A ResNet with the paper's head; `blocks`, `v15` and `fields` are `ResNet`'s."""
    backbone = ResNet(
        blocks=blocks,
        v15=v15,
        batch_norm_epsilon=preprocessing.batch_norm_epsilon,
        width=width,
        dtype=dtype,
        remat=remat,
        **fields,
    )
    return BackboneAndHead(backbone, num_classes, preprocessing, width, dtype)


def mobilenet_v3_large(
    *,
    num_classes: int,
    preprocessing: Preprocessing,
    width: float,
    dtype: DTypeLike,
    remat: bool,
) -> BackboneAndHead:
    """MobileNetV3-Large at output stride 16: made for the head `lraspp`."""
    backbone = MobileNetV3(
        batch_norm_epsilon=preprocessing.batch_norm_epsilon,
        width=width,
        dtype=dtype,
        remat=remat,
    )
    return BackboneAndHead(backbone, num_classes, preprocessing, width, dtype)


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
    # As in Keras: 23.6 M parameters at width 1 (paper, table 4).
    "resnet50": partial(resnet, blocks=RESNET50, v15=False),
    # Without stage 5: 8.6 M parameters at width 1. Faster R-CNN's backbone C4 (Ren et
    # al. 2015; He et al. 2017, section 3).
    "resnet50_c4": partial(
        resnet, blocks=RESNET50, v15=False, last_stage=4, output_stride=16
    ),
    # As in torchvision and timm, for weight files in their format.
    "resnet50_v15": partial(resnet, blocks=RESNET50, v15=True),
    "resnet101": partial(resnet, blocks=RESNET101, v15=True),
    # As in timm (`resnet50d`): He et al. 2019.
    "resnet50_d": partial(resnet, blocks=RESNET50, v15=True, variant_d=True),
    "mobilenet_v3_large": mobilenet_v3_large,
}
"""The values of `model.name`."""

DISCRIMINATORS = {
    "dcgan": DCGANDiscriminator,
    "dcgan_ln": LayerNormDiscriminator,
    "dcgan_sn": SpectralNormDiscriminator,
    "fcn": FullyConvolutionalDiscriminator,
}
"""The values of `model.discriminator`; each is called with the compute dtype."""

PIXELWISE_DISCRIMINATORS = ("fcn",)
"""Those with a score for each pixel."""

BATCH_NORM_DISCRIMINATORS = ("dcgan",)
"""Those in which the score of an image depends on the other images of the batch."""
