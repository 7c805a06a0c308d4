"""A folder of images and masks, such as your own or CamVid as SegNet arranges it.

`folder_layouts` describes how the folder may be arranged, and `folder_masks` what the
pixels of a mask mean.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import codec, image_reader, labels
from tempseg_jax.data.sources import folder_layouts, folder_notes
from tempseg_jax.data.sources.base import Entry, Record, digest, stat_listing
from tempseg_jax.data.sources.folder_content import Content
from tempseg_jax.data.sources.folder_layouts import Pairs
from tempseg_jax.data.sources.folder_masks import MaskRules
from tempseg_jax.types import IGNORE_LABEL


class Folder:
    """A folder in one of the layouts of `folder_layouts`.

    Args:
        manual_dir: The folder.
        void_index: The mask value that is void, besides 255; None if there is none.
        class_names: One name per class, in the order of the mask values. None names
            the classes by their numbers, up to the highest value in any mask.
        class_colors: RGB color of each class, required if masks are RGB; None is VOC's
            color map. If all are gray, they are the values of gray masks too. Other
            colors in an RGB mask are void if `void_index` is set, and otherwise an
            error.
        mask_values: Class of each mask value, as {0: 0, 255: 1}; None if the values are
            the classes.
        allow_absent_classes: Whether a class may occur in no mask of train.
        downscale: Divisor of the height and the width of all images (by the mean over
            areas) and masks (by the nearest pixel), in training and in evaluation.

    Raises:
        ValueError: If `manual_dir` is not set, an option has a value that is not
            allowed, or a list of stems is malformed.
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
        mask_values: Mapping[int | str, int] | None = None,
        allow_absent_classes: bool = False,
        downscale: int = 1,
    ):
        if type(downscale) is not int or downscale < 1:
            raise ValueError(
                f"data.options.downscale={downscale!r} must be a positive integer"
            )
        self._rules = MaskRules(
            void_index=void_index,
            class_names=class_names,
            class_colors=class_colors,
            mask_values=mask_values,
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
        self._allow_absent = allow_absent_classes
        self._downscale = downscale
        self._pairs = folder_layouts.find(root)
        self.splits = tuple(self._pairs)
        self._content = {split: Content() for split in self.splits}

    def fingerprint(self) -> str:
        """Return a digest of the options and of all names, sizes and times of files."""
        folders = {
            p for pairs in self._pairs.values() for p in (pairs.images, pairs.masks)
        }
        listings = [(f.name, stat_listing(f)) for f in sorted(folders)]
        stems = [(split, pairs.stems) for split, pairs in self._pairs.items()]
        options = self._rules.options()
        if self._downscale > 1:  # else the digest of versions without this option
            options.append(self._downscale)
        if self._allow_absent:
            options.append("allow_absent_classes")
        if any(map(folder_layouts.is_ambiguous, self._pairs.values())):
            options.append("paired by all stems")  # earlier versions took any of two
        return digest(*options, stems, listings)

    def notes(self) -> tuple[str, ...]:
        """Return sentences on the files of the folder that no split uses."""
        return folder_notes.left_out(self._pairs)

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
        masks = folder_layouts.masks_by_stem(pairs.masks, image_stems=images)
        load = functools.partial(self._load, split=split, images=images, masks=masks)
        return [
            Entry(
                id=stem,
                nbytes=sum(path.stat().st_size for path in images.get(stem, [])),
                load=functools.partial(load, stem),
            )
            for stem in (sorted(images) if pairs.stems is None else pairs.stems)
        ]

    def classes(self) -> tuple[tuple[str, ...], UInt8[np.ndarray, "k 3"]]:
        """Return the given names and colors, or numbers and VOC's color map.

        Raises:
            ValueError: If no mask of train has a pixel of one of the classes, or all
                pixels of train or val are void.
        """
        highest = max(content.highest for content in self._content.values())
        names = self._rules.names or tuple(f"class {i}" for i in range(highest + 1))
        for split, content in self._content.items():
            if split != "test" and content.masks:
                content.check_labeled(where=f"{self.where}: {split}")
            if split == "train" and content.masks and not self._allow_absent:
                content.check_present(
                    names, where=f"{self.where}: {split}", rules=self._rules
                )
        colors = self._rules.colors
        return names, labels.voc_palette(len(names)) if colors is None else colors

    def _load(
        self,
        stem: str,
        *,
        split: str,
        images: dict[str, list[Path]],
        masks: dict[str, list[Path]],
    ) -> Record:
        pairs: Pairs = self._pairs[split]
        image = folder_layouts.only(
            stem, images, folder=pairs.images, needed_by=pairs.listed_in
        )
        path = folder_layouts.only_mask(
            stem, masks, folder=pairs.masks, image=image.name
        )
        read = image_reader.read_bytes
        data, size = codec.to_stored(read(image), name=str(image))
        mask = codec.read_mask(read(path), name=str(path))
        label = self._rules.label(mask, path)
        codec.check_label(label, size=size, num_classes=IGNORE_LABEL, name=str(path))
        self._content[split].add(mask, label)
        return record(stem, data, label, downscale=self._downscale, name=str(image))


def record(
    id_: str,
    data: bytes,
    label: UInt8[np.ndarray, "h w"],
    *,
    downscale: int,
    name: str,
) -> Record:
    """Return an example as it is stored.

    Args:
        id_: Its id.
        data: The image as JPEG or PNG.
        label: The class of each pixel, or 255.
        downscale: Divisor of the height and the width.
        name: The image file, for messages.
    """
    if downscale > 1:
        pixels = codec.decode_image(data, name=name)
        pixels, label = downscaled(pixels, label, factor=downscale)
        data = codec.encode_image(pixels)
    return {"id": id_, "image": data, "label": codec.encode_label(label)}


def downscaled(
    image: UInt8[np.ndarray, "h w 3"], label: UInt8[np.ndarray, "h w"], *, factor: int
) -> tuple[UInt8[np.ndarray, "h_out w_out 3"], UInt8[np.ndarray, "h_out w_out"]]:
    """Divide height and width: means over areas of the image, nearest label."""
    height, width = (max(1, side // factor) for side in label.shape)
    return (
        cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA),
        cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT),
    )
