"""Types and constants that all parts of the package share."""

from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

IGNORE_LABEL = 255
"""The label of void pixels, which are neither trained on nor scored."""

Scalar = float | Float[Array, ""] | Float[np.ndarray, ""]

Metrics = dict[str, Float[Array, ""]]
"""Scalars by name, such as `loss_seg`, without the prefix `train/` or `val/`."""


class Batch(TypedDict):
    """Images and labels, as the data pipeline sends them to the device."""

    image: UInt8[Array, "b h w 3"]  # RGB
    label: UInt8[Array, "b h w"]  # 0 to k - 1, or IGNORE_LABEL
    unlabeled_image: NotRequired[UInt8[Array, "u h w 3"]]
    unlabeled_visible: NotRequired[Bool[Array, "u h w"]]  # False: padding of the crop
    # Pixels of p that D sees; where it is missing, those whose label is not void.
    visible: NotRequired[Bool[Array, "b h w"]]
