"""What the parts of the system hand each other."""

from typing import TypedDict

import numpy as np
from jaxtyping import Array, Float, UInt8

IGNORE_LABEL = 255
"""The void label: never scored, never trained on, masked out of what D sees."""

Scalar = float | Float[Array, ""] | Float[np.ndarray, ""]

Metrics = dict[str, Float[Array, ""]]
"""Names such as `loss_seg`, without the `train/` or `val/` of the log."""


class Batch(TypedDict):
    """Images and labels, from the data pipeline to the device."""

    image: UInt8[Array, "b h w 3"]  # RGB
    label: UInt8[Array, "b h w"]  # 0 to k - 1, or IGNORE_LABEL
