"""Augmentation of images and labels in NumPy and OpenCV, one class per operation.

The crop is written directly into the batch, and the next operations work in place: at
400 images/s per core, allocating memory for each operation costs more than computing.
"""

import dataclasses
from typing import Protocol, TypedDict

import cv2
import numpy as np
from jaxtyping import UInt8

from tempseg_jax.types import IGNORE_LABEL

PAD_COLOR = (124, 116, 104)
"""RGB of padding: the mean color of ImageNet, which normalizes to about zero."""

_CROP_TRIES = 10


class Example(TypedDict):
    """One decoded image and its label."""

    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]


class Sliceable(Protocol):
    """An array, or a stored array of which slicing reads only the requested window."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and, for an image, channels."""

    def __getitem__(self, window: tuple[slice, slice]) -> UInt8[np.ndarray, "h w *c"]:
        """Return the pixels of a window, given by its first and last row and column."""


class CropSource(TypedDict):
    """An image and its label from which a crop is taken, such as an Example."""

    image: Sliceable
    label: Sliceable


@dataclasses.dataclass(frozen=True)
class RandomScaleCrop:
    """Resize by a factor from U(min_scale, max_scale), crop at random, pad with void.

    The window of the crop is drawn first and only its pixels are resized. This has the
    same distribution as resizing the whole image and cropping, for a fraction of the
    work. A window is a whole number of source pixels, so the relative error of the
    factor is at most 1 / (2 · window).

    Args:
        min_scale: The smallest factor.
        max_scale: The largest factor.
        cat_max_ratio: As in mmsegmentation, another window is drawn while one class
            fills more than this share of its pixels that are not void; ten at most, and
            the last one is taken. 1 draws only one.
    """

    min_scale: float
    max_scale: float
    cat_max_ratio: float

    def __call__(
        self, source: CropSource, rng: np.random.Generator, *, out: Example
    ) -> None:
        """Write one crop of `source` into `out`, whose size is that of the crop."""
        label = source["label"]
        scale = rng.uniform(self.min_scale, self.max_scale)
        rows, height = _window(label.shape[0], out["label"].shape[0], scale=scale)
        columns, width = _window(label.shape[1], out["label"].shape[1], scale=scale)
        for _ in range(_CROP_TRIES):
            y = int(rng.integers(label.shape[0] - rows + 1))
            x = int(rng.integers(label.shape[1] - columns + 1))
            window = np.s_[y : y + rows, x : x + columns]
            classes = label[window]  # tiles are read here, and not again below
            if self.cat_max_ratio >= 1 or self._is_varied(classes):
                break
        for key, pixels, interpolation, fill in (
            ("image", source["image"][window], cv2.INTER_LINEAR, PAD_COLOR),
            ("label", classes, cv2.INTER_NEAREST_EXACT, IGNORE_LABEL),
        ):
            target = out[key][:height, :width]
            cv2.resize(pixels, (width, height), target, interpolation=interpolation)
            out[key][height:] = fill
            out[key][:height, width:] = fill

    def _is_varied(self, label: UInt8[np.ndarray, "h w"]) -> bool:
        counts = np.bincount(label.ravel(), minlength=256)[:IGNORE_LABEL]
        several = np.count_nonzero(counts) > 1
        return bool(several and counts.max() < counts.sum() * self.cat_max_ratio)


def _window(length: int, crop: int, *, scale: float) -> tuple[int, int]:
    """Return the window's length in source pixels, and in pixels of the crop."""
    window = max(1, round(crop / scale))
    if window <= length:
        return window, crop
    return length, min(crop, max(1, round(length * scale)))


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Flip image and label horizontally with probability 0.5."""

    def __call__(self, example: Example, rng: np.random.Generator) -> None:
        """Flip the example in place with probability 0.5."""
        if rng.random() < 0.5:
            cv2.flip(example["image"], 1, dst=example["image"])
            cv2.flip(example["label"], 1, dst=example["label"])


@dataclasses.dataclass(frozen=True)
class PhotometricDistortion:
    """Change brightness, contrast, saturation and hue, each with probability 0.5.

    The ranges are those of SSD (Liu et al. 2016) and mmsegmentation: brightness ±32,
    contrast and saturation × 0.5 to 1.5, hue ±18 of OpenCV's 180. Labels do not change;
    padding changes its color too, but its label stays void.
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
