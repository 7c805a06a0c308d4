"""Augmentation in NumPy and OpenCV: one class each, the same for image and label.

The crop is written where it belongs in the batch, and what follows works on it there:
at 400 images/s a core, fresh memory for every stage costs more than the arithmetic.
"""

import dataclasses
from typing import TypedDict

import cv2
import numpy as np
from jaxtyping import UInt8

from tempseg_jax.types import IGNORE_LABEL

PAD_COLOR = (124, 116, 104)
"""ImageNet's mean, rounded: the least surprising color to a pretrained network."""

_CROP_TRIES = 10


class Example(TypedDict):
    """One decoded image and its label."""

    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class RandomScaleCrop:
    """Scale by U(min_scale, max_scale), pad with void to the crop, crop at random.

    The window is drawn first and only its pixels are resized: the same distribution as
    resizing everything and cropping, at a fraction of the work. A window is a whole
    number of source pixels, so the scale is exact to 1 / (2 · window).

    Args:
        min_scale: the smallest factor.
        max_scale: the largest factor.
        cat_max_ratio: redraw the window, up to ten times, while one class fills more
            than this share of its scored pixels (mmsegmentation's); 1 never redraws.
    """

    min_scale: float
    max_scale: float
    cat_max_ratio: float

    def __call__(
        self, source: Example, rng: np.random.Generator, *, out: Example
    ) -> None:
        """Write one crop of `source` into all of `out`, whose size is the crop's."""
        label = source["label"]
        scale = rng.uniform(self.min_scale, self.max_scale)
        rows, height = _window(label.shape[0], out["label"].shape[0], scale=scale)
        columns, width = _window(label.shape[1], out["label"].shape[1], scale=scale)
        for _ in range(_CROP_TRIES):
            y = int(rng.integers(label.shape[0] - rows + 1))
            x = int(rng.integers(label.shape[1] - columns + 1))
            window = np.s_[y : y + rows, x : x + columns]
            if self.cat_max_ratio >= 1 or self._is_varied(label[window]):
                break
        for key, interpolation, fill in (
            ("image", cv2.INTER_LINEAR, PAD_COLOR),
            ("label", cv2.INTER_NEAREST_EXACT, IGNORE_LABEL),
        ):
            target = out[key][:height, :width]
            cv2.resize(
                source[key][window],
                (width, height),
                target,
                interpolation=interpolation,
            )
            out[key][height:] = fill
            out[key][:height, width:] = fill

    def _is_varied(self, label: UInt8[np.ndarray, "h w"]) -> bool:
        counts = np.bincount(label.ravel(), minlength=256)[:IGNORE_LABEL]
        several = np.count_nonzero(counts) > 1
        return bool(several and counts.max() < counts.sum() * self.cat_max_ratio)


def _window(length: int, crop: int, *, scale: float) -> tuple[int, int]:
    """Return how many source pixels are taken, and how many of the crop they fill."""
    window = max(1, round(crop / scale))
    if window <= length:
        return window, crop
    return length, min(crop, max(1, round(length * scale)))


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right, half of the time."""

    def __call__(self, example: Example, rng: np.random.Generator) -> None:
        """Mirror the example in place, or leave it."""
        if rng.random() < 0.5:
            cv2.flip(example["image"], 1, dst=example["image"])
            cv2.flip(example["label"], 1, dst=example["label"])


@dataclasses.dataclass(frozen=True)
class PhotometricDistortion:
    """Change brightness, contrast, saturation and hue, each half of the time.

    Ranges are those of SSD (Liu et al. 2016) and mmsegmentation: brightness ±32,
    contrast and saturation × 0.5 to 1.5, hue ±18 of 180 degrees. Labels are untouched,
    and so is the padding's meaning: it is void, whatever its color.
    """

    def __call__(self, example: Example, rng: np.random.Generator) -> None:
        """Distort the example's colors in place."""
        image = example["image"]
        brightness = rng.uniform(-32, 32) * (rng.random() < 0.5)
        contrast = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
        saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
        hue = int(rng.integers(-18, 19)) if rng.random() < 0.5 else 0
        value = np.arange(256)
        if brightness or contrast != 1:
            table = np.clip(value * contrast + brightness, 0, 255).astype(np.uint8)
            cv2.LUT(image, table, dst=image)
        if hue or saturation != 1:
            saturated = np.clip(value * saturation, 0, 255)
            table = np.stack([(value + hue) % 180, saturated, value], axis=-1)
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            cv2.LUT(hsv, table.astype(np.uint8)[None], dst=hsv)
            cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=image)
