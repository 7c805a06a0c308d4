"""Report image sizes, pixels per class, void and undecodable files of a split."""

import collections
import dataclasses
import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from tempseg_jax.data import codec
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.decoder import decode
from tempseg_jax.data.labels import VOID_COLOR, color_labels
from tempseg_jax.io import atomic
from tempseg_jax.types import IGNORE_LABEL, Batch


@dataclasses.dataclass(frozen=True)
class Report:
    """Counts over all images of one split that can be decoded."""

    split: Split
    pixels: Int64[np.ndarray, "256"]  # with each label value
    images: Int64[np.ndarray, "256"]  # with at least one pixel of each label value
    sizes: collections.Counter[tuple[int, int]]  # images of each (height, width)
    problems: tuple[str, ...]  # messages on the images that cannot be decoded

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        total = max(1, self.pixels.sum())
        sides = [f"{w}x{h} ({count:,})" for (h, w), count in self.sizes.most_common(5)]
        more = ", …" if len(self.sizes) > 5 else ""
        names = [*self.split.class_names, "void"]
        values = [*range(len(self.split.class_names)), IGNORE_LABEL]
        width = max(map(len, names))
        images = _plural(self.sizes.total(), "image")
        return [
            f"{self.split.dataset} {self.split.name}: {images} of"
            f" {_plural(len(self.sizes), 'size')}: {', '.join(sides)}{more}",
            f"  {'class':{width}}  {'pixels':>15}  {'share':>7}  {'images':>7}",
            *(
                f"  {name:{width}}  {self.pixels[value]:>15,}"
                f"  {self.pixels[value] / total:>7.2%}  {self.images[value]:>7,}"
                for name, value in zip(names, values, strict=True)
            ),
            f"  problem files: {len(self.problems)}",
            *(f"    {problem}" for problem in self.problems),
        ]


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)


def inspect(split: Split) -> Report:
    """Decode all images and labels of the split, on all cores, and count pixels."""
    pixels = np.zeros(256, np.int64)
    images = np.zeros(256, np.int64)
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    problems = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(
            functools.partial(_count, split=split), range(len(split.examples))
        )
        bar = tqdm(
            results,
            total=len(split.examples),
            desc=f"reading {split.name}",
            unit=" images",
            disable=None,
        )
        for result in bar:
            if isinstance(result, str):
                problems.append(result)
                continue
            size, counts = result
            sizes[size] += 1
            pixels += counts
            images += counts > 0
    return Report(split, pixels, images, sizes, tuple(problems))


def grid(
    batch: Batch, *, palette: UInt8[np.ndarray, "k 3"], columns: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture of a batch: each image with its colored label to its right."""
    painted = color_labels(batch["label"], palette)
    pairs = np.concatenate([batch["image"], painted], axis=2)
    pairs = np.pad(pairs, ((0, 0), (0, 4), (0, 4), (0, 0)), constant_values=255)
    blank = np.full((-len(pairs) % columns, *pairs.shape[1:]), 255, np.uint8)
    pairs = np.concatenate([pairs, blank])
    rows = pairs.reshape(-1, columns, *pairs.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def with_legend(
    picture: UInt8[np.ndarray, "h w 3"],
    *,
    names: Sequence[str],
    palette: UInt8[np.ndarray, "k 3"],
) -> UInt8[np.ndarray, "_ w 3"]:
    """Return the picture above a legend with the color of each class and of void."""
    size = max(12, min(24, picture.shape[1] // 40))  # of the font, in pixels
    font = ImageFont.load_default(size)
    entries = [*zip(names, palette.tolist(), strict=True), ("void", VOID_COLOR)]
    places, left, top = [], size, size // 2
    for name, _ in entries:
        width = round(font.getlength(name)) + 3 * size
        if left + width > picture.shape[1] and left > size:
            left, top = size, top + 2 * size
        places.append((left, top))
        left += width
    legend = Image.new("RGB", (picture.shape[1], top + 2 * size), "white")
    draw = ImageDraw.Draw(legend)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y, x + size, y + size), tuple(color), "black")
        draw.text((x + 3 * size // 2, y + size // 2), name, "black", font, "lm")
    return np.concatenate([picture, np.array(legend)])


def save_grid(picture: UInt8[np.ndarray, "h w 3"], path: str) -> None:
    """Write a picture to a file, in the format of its suffix; create its folder.

    Raises:
        OSError: If the file cannot be written.
    """
    with atomic.replacing(path) as partial:
        try:
            written = cv2.imwrite(str(partial), picture[..., ::-1])
        except cv2.error as error:
            raise OSError(f"{path}: cannot be written ({error.err})") from error
        if not written:
            raise OSError(
                f"{path}: cannot be written; check permissions and free disk space"
            )


def _count(
    index: int, *, split: Split
) -> tuple[tuple[int, int], Int64[np.ndarray, "256"]] | str:
    try:
        label = decode(split.examples[index], split=split)["label"]
    except codec.BadFile as error:
        return str(error)
    return label.shape, np.bincount(label.ravel(), minlength=256)
