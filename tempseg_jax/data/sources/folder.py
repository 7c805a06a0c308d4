"""A folder of images and masks, such as your own or CamVid as SegNet arranges it.

`folder_layouts` describes how the folder may be arranged.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import codec, labels
from tempseg_jax.data.sources import folder_layouts
from tempseg_jax.data.sources.base import Entry, Record, digest, stat_listing
from tempseg_jax.data.sources.folder_layouts import Pairs
from tempseg_jax.types import IGNORE_LABEL


class Folder:
    """A folder in one of the layouts of `folder_layouts`.

    Args:
        manual_dir: The folder.
        void_index: The mask value that is void, besides 255; None if there is none.
        class_names: One name per class, in the order of the mask values. None names
            the classes by their numbers, up to the highest value in any mask.
        class_colors: RGB color of each class, required if masks are RGB; None is VOC's
            color map. Other colors in a mask are void if `void_index` is set, and
            otherwise an error.
        downscale: Divisor of the height and the width of all images (by the mean over
            areas) and masks (by the nearest pixel), in training and in evaluation.

    Raises:
        ValueError: If `manual_dir` is not set, `class_colors` does not match
            `class_names`, `downscale` is no positive integer, or a list of stems is
            malformed.
        FileNotFoundError: If `manual_dir` does not exist or contains no images.
    """

    name = "folder"

    def __init__(
        self,
        *,
        manual_dir: str | None,
        void_index: int | None = None,
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[Sequence[int]] | None = None,
        downscale: int = 1,
    ):
        if type(downscale) is not int or downscale < 1:
            raise ValueError(
                f"data.options.downscale={downscale!r} must be a positive integer"
            )
        if not manual_dir:
            raise ValueError(
                "data.manual_dir is not set; set it to the folder of images and masks"
            )
        root = Path(manual_dir)
        if not root.is_dir():
            raise FileNotFoundError(
                f"data.manual_dir={manual_dir} does not exist; set it to the folder of"
                " images and masks"
            )
        self.where = manual_dir
        self._void_index = void_index
        self._names = tuple(class_names) if class_names else None
        self._colors = _checked_colors(class_colors, class_names=self._names)
        self._downscale = downscale
        self._pairs = folder_layouts.find(root)
        self._highest = -1
        self.splits = tuple(self._pairs)

    def fingerprint(self) -> str:
        """Return a digest of the options and of all names, sizes and times of files."""
        folders = {
            p for pairs in self._pairs.values() for p in (pairs.images, pairs.masks)
        }
        listings = [(f.name, stat_listing(f)) for f in sorted(folders)]
        stems = [(split, pairs.stems) for split, pairs in self._pairs.items()]
        colors = None if self._colors is None else self._colors.tolist()
        options = [self._void_index, self._names, colors]
        if self._downscale > 1:  # else the digest of versions without this option
            options.append(self._downscale)
        return digest(*options, stems, listings)

    def split_expression(self, split: str) -> str:
        """Return `split` if the folder contains it."""
        if split not in self.splits:
            raise ValueError(
                f"{self.where} has no split {split!r}; choose one of"
                f" {', '.join(self.splits)}"
            )
        return split

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the examples of one split, sorted by stem or in its list's order."""
        pairs = self._pairs[split]
        images = folder_layouts.paths_by_stem(pairs.images)
        masks = folder_layouts.paths_by_stem(pairs.masks)
        load = functools.partial(self._load, pairs=pairs, images=images, masks=masks)
        return [
            Entry(
                id=stem,
                nbytes=sum(path.stat().st_size for path in images.get(stem, [])),
                load=functools.partial(load, stem),
            )
            for stem in (sorted(images) if pairs.stems is None else pairs.stems)
        ]

    def classes(self) -> tuple[tuple[str, ...], UInt8[np.ndarray, "k 3"]]:
        """Return the given names and colors, or numbers and VOC's color map."""
        names = self._names or tuple(f"class {i}" for i in range(self._highest + 1))
        colors = (
            labels.voc_palette(len(names)) if self._colors is None else self._colors
        )
        return names, colors

    def _load(
        self,
        stem: str,
        *,
        pairs: Pairs,
        images: dict[str, list[Path]],
        masks: dict[str, list[Path]],
    ) -> Record:
        image = _only(stem, images, folder=pairs.images, needed_by=pairs.listed_in)
        mask = _only(stem, masks, folder=pairs.masks, needed_by=f"image {image.name}")
        data = image.read_bytes()
        size = codec.image_size(data, name=str(image))
        label = self._label(codec.read_mask(mask.read_bytes(), name=str(mask)), mask)
        codec.check_label(label, size=size, num_classes=IGNORE_LABEL, name=str(mask))
        if self._downscale > 1:
            pixels = codec.decode_image(data, name=str(image))
            pixels, label = _downscaled(pixels, label, factor=self._downscale)
            data = codec.encode_image(pixels)
        return {"id": stem, "image": data, "label": codec.encode_label(label)}

    def _label(
        self, mask: UInt8[np.ndarray, "h w *c"], path: Path
    ) -> UInt8[np.ndarray, "h w"]:
        if mask.ndim == 3:
            mask = self._from_colors(mask, path)
        label = mask
        if self._void_index is not None:
            label = np.where(mask == self._void_index, np.uint8(IGNORE_LABEL), mask)
        values = np.unique(label[label != IGNORE_LABEL])
        highest = int(values[-1]) if values.size else -1
        if self._names and highest >= len(self._names):
            raise codec.BadFile(
                f"{path}: the value {highest} is not one of the {len(self._names)}"
                " classes; if it is void, set data.options.void_index to it"
            )
        self._highest = max(self._highest, highest)
        return label

    def _from_colors(
        self, mask: UInt8[np.ndarray, "h w 3"], path: Path
    ) -> UInt8[np.ndarray, "h w"]:
        if self._colors is None:
            raise codec.BadFile(
                f"{path} is an RGB mask; set data.options.class_colors to the color of"
                " each class"
            )
        table = np.full(1 << 24, -1, np.int16)
        table[_packed(self._colors)] = np.arange(len(self._colors))
        index = table[_packed(mask)]
        unlisted = index < 0
        if unlisted.any() and self._void_index is None:
            color = mask[unlisted][0].tolist()
            raise codec.BadFile(
                f"{path}: the color {color} is not in data.options.class_colors; add"
                " it, or set data.options.void_index to make unlisted colors void"
            )
        return np.where(unlisted, IGNORE_LABEL, index).astype(np.uint8)


def _downscaled(
    image: UInt8[np.ndarray, "h w 3"], label: UInt8[np.ndarray, "h w"], *, factor: int
) -> tuple[UInt8[np.ndarray, "h_out w_out 3"], UInt8[np.ndarray, "h_out w_out"]]:
    """Divide height and width: means over areas of the image, nearest label."""
    height, width = (max(1, side // factor) for side in label.shape)
    return (
        cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA),
        cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT),
    )


def _only(
    stem: str, paths_by_stem: dict[str, list[Path]], *, folder: Path, needed_by: str
) -> Path:
    paths = paths_by_stem.get(stem, [])
    if not paths:
        raise codec.BadFile(f"{folder}/{stem}.* does not exist; {needed_by} needs it")
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise codec.BadFile(f"{folder}: {names} have the same stem; keep one of them")
    return paths[0]


def _checked_colors(
    colors: Sequence[Sequence[int]] | None, *, class_names: Sequence[str] | None
) -> UInt8[np.ndarray, "k 3"] | None:
    if not colors:
        return None
    table = np.array(colors)
    if table.ndim != 2 or table.shape[1] != 3 or table.min() < 0 or table.max() > 255:
        raise ValueError(
            f"data.options.class_colors={colors}: each color must be three numbers from"
            " 0 to 255"
        )
    if class_names is None or len(class_names) != len(table):
        raise ValueError(
            f"data.options.class_colors has {len(table)} colors, but"
            f" data.options.class_names has {len(class_names or ())} names; list one"
            " color per name"
        )
    return table.astype(np.uint8)


def _packed(colors: UInt8[np.ndarray, "*b 3"]) -> np.ndarray:
    """Return each RGB color as one integer."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue
