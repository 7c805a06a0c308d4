"""Layouts: the tensor names and axis orders of each family of weight files.

Loading and exporting use the same rows.
"""

from tempseg_jax.models.preprocessing import (
    CAFFE,
    TORCHVISION,
    TORCHVISION_MOBILENET,
)
from tempseg_jax.models.weights.layouts.mobilenet import (
    LRASPP_MOBILENET_V3,
    TIMM_MOBILENET_V3,
    TORCHVISION_MOBILENET_V3,
)
from tempseg_jax.models.weights.layouts.resnet import (
    KERAS_RESNET50,
    TIMM_RESNET50_D,
    TORCHVISION_RESNET50,
    TORCHVISION_RESNET101,
)
from tempseg_jax.models.weights.layouts.rows import (
    DENSE_HWC,
    LINEAR_CHW,
    OIHW,
    SAME,
    Arrangement,
    Layout,
    Row,
)
from tempseg_jax.models.weights.layouts.segmentation import (
    DEEPLABV3_RESNET50,
    DEEPLABV3_RESNET101,
    FCN_RESNET50,
    FCN_RESNET101,
)
from tempseg_jax.models.weights.layouts.vgg import (
    KERAS_VGG16,
    TIMM_VGG16,
    TORCHVISION_VGG16,
)

__all__ = [
    "DEEPLABV3_RESNET50",
    "DEEPLABV3_RESNET101",
    "DENSE_HWC",
    "FCN_RESNET50",
    "FCN_RESNET101",
    "KERAS_RESNET50",
    "KERAS_VGG16",
    "LAYOUTS",
    "LINEAR_CHW",
    "LRASPP_MOBILENET_V3",
    "OIHW",
    "PREPROCESSINGS",
    "SAME",
    "TIMM_MOBILENET_V3",
    "TIMM_RESNET50_D",
    "TIMM_VGG16",
    "TORCHVISION_MOBILENET_V3",
    "TORCHVISION_RESNET50",
    "TORCHVISION_RESNET101",
    "TORCHVISION_VGG16",
    "Arrangement",
    "Layout",
    "Row",
    "recognize",
]

LAYOUTS = (
    KERAS_RESNET50,
    KERAS_VGG16,
    # The names of a ResNet-50 are among those of a ResNet-101, which comes first.
    TORCHVISION_RESNET101,
    TORCHVISION_RESNET50,
    TORCHVISION_VGG16,
    TIMM_VGG16,
    FCN_RESNET101,
    FCN_RESNET50,
    DEEPLABV3_RESNET101,
    DEEPLABV3_RESNET50,
    TIMM_RESNET50_D,
    LRASPP_MOBILENET_V3,
    TORCHVISION_MOBILENET_V3,
    TIMM_MOBILENET_V3,
)

PREPROCESSINGS = {
    "caffe": CAFFE,
    "torchvision": TORCHVISION,
    "torchvision_mobilenet": TORCHVISION_MOBILENET,
}
"""Preprocessings by their names in safetensors metadata ("preprocessing")."""


def recognize(names: frozenset[str]) -> Layout | None:
    """Return the layout whose signature is among a file's tensor names, else None."""
    return next((layout for layout in LAYOUTS if layout.signature <= names), None)
