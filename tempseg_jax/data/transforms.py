"""Augmentation in NumPy and OpenCV: one class each, exact on image and label alike.

Each is called with an element and the generator that grain derives from the element's
position, and returns a new element; it never writes into its input, which may be
cached.
"""

import dataclasses
from typing import TypedDict

import cv2
import numpy as np
from grain import transforms as grain_transforms
from jaxtyping import UInt8

from tempseg_jax.types import IGNORE_LABEL

PAD_COLOR = (124, 116, 104)
"""ImageNet's mean, rounded: the least surprising colour to a pretrained network."""

_CROP_TRIES = 10


class Example(TypedDict):
    """One decoded image and its label."""

    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class RandomScaleCrop(grain_transforms.RandomMap):
    """Scale by U(min_scale, max_scale), pad with void to the crop, crop at random.

    The window is drawn first and only its pixels are resized: the same distribution as
    resizing everything and cropping, at a fraction of the work. A window is a whole
    number of source pixels, so the scale is exact to 1 / (2 · window).

    Args:
        size: the crop's height and width in pixels.
        min_scale: the smallest factor.
        max_scale: the largest factor.
        cat_max_ratio: redraw the window, up to ten times, while one class fills more
            than this share of its scored pixels (mmsegmentation's); 1 never redraws.
    """

    size: int
    min_scale: float
    max_scale: float
    cat_max_ratio: float

    def random_map(self, element: Example, rng: np.random.Generator) -> Example:
        """Return the crop."""
        image, label = element["image"], element["label"]
        scale = rng.uniform(self.min_scale, self.max_scale)
        rows, height = self._window(label.shape[0], scale)
        columns, width = self._window(label.shape[1], scale)
        for _ in range(_CROP_TRIES):
            y = rng.integers(label.shape[0] - rows + 1)
            x = rng.integers(label.shape[1] - columns + 1)
            window = np.s_[y : y + rows, x : x + columns]
            if self.cat_max_ratio >= 1 or self._is_varied(label[window]):
                break
        return {
            "image": self._fit(
                image[window], (width, height), cv2.INTER_LINEAR, PAD_COLOR
            ),
            "label": self._fit(
                label[window], (width, height), cv2.INTER_NEAREST_EXACT, IGNORE_LABEL
            ),
        }

    def _window(self, length: int, scale: float) -> tuple[int, int]:
        """Return how many source pixels are taken, and how many they become."""
        window = max(1, round(self.size / scale))
        if window <= length:
            return window, self.size
        return length, min(self.size, max(1, round(length * scale)))

    def _is_varied(self, label: UInt8[np.ndarray, "h w"]) -> bool:
        counts = np.bincount(label.ravel(), minlength=256)[:IGNORE_LABEL]
        return (
            counts > 0
        ).sum() > 1 and counts.max() < counts.sum() * self.cat_max_ratio

    def _fit(
        self,
        window: UInt8[np.ndarray, "h w *c"],
        size: tuple[int, int],
        interpolation: int,
        fill: int | tuple[int, int, int],
    ) -> UInt8[np.ndarray, "{self.size} {self.size} *c"]:
        resized = cv2.resize(window, size, interpolation=interpolation)
        if size == (self.size, self.size):
            return resized
        padded = np.empty((self.size, self.size, *window.shape[2:]), np.uint8)
        padded[:] = fill
        padded[: size[1], : size[0]] = resized
        return padded


@dataclasses.dataclass(frozen=True)
class RandomFlip(grain_transforms.RandomMap):
    """Mirror left and right, half of the time."""

    def random_map(self, element: Example, rng: np.random.Generator) -> Example:
        """Return the element or its mirror image."""
        if rng.random() < 0.5:
            return element
        return {
            "image": cv2.flip(element["image"], 1),
            "label": cv2.flip(element["label"], 1),
        }


@dataclasses.dataclass(frozen=True)
class PhotometricDistortion(grain_transforms.RandomMap):
    """Change brightness, contrast, saturation and hue, each half of the time.

    Ranges are those of SSD (Liu et al. 2016) and mmsegmentation: brightness ±32,
    contrast and saturation × 0.5 to 1.5, hue ±18 of 180 degrees. Labels are untouched.
    """

    def random_map(self, element: Example, rng: np.random.Generator) -> Example:
        """Return the element with distorted colours."""
        image = element["image"]
        brightness = rng.uniform(-32, 32) * (rng.random() < 0.5)
        contrast = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
        image = cv2.addWeighted(image, contrast, image, 0, brightness)
        saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
        hue = int(rng.integers(-18, 19)) * int(rng.random() < 0.5)
        if saturation != 1 or hue:
            image = _recolored(image, saturation=saturation, hue=hue)
        return {"image": image, "label": element["label"]}


def _recolored(
    image: UInt8[np.ndarray, "h w 3"], *, saturation: float, hue: int
) -> UInt8[np.ndarray, "h w 3"]:
    value = np.arange(256)
    tables = np.stack(
        [(value + hue) % 180, np.clip(value * saturation, 0, 255), value], axis=-1
    )
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, tables.astype(np.uint8)[None]), cv2.COLOR_HSV2RGB)
