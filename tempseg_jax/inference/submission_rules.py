"""Rules of the VOC and Cityscapes test servers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tempseg_jax.data import labels as tables
from tempseg_jax.inference import overlays
from tempseg_jax.io.json_files import read_text

_VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls/"
_CITYSCAPES_SIZE = (1024, 2048)  # rows, columns
_CITYSCAPES_ID = re.compile(r"[a-z-]+_\d{6}_\d{6}")


class Rules(NamedTuple):
    """The rules of a test server."""

    dataset: str
    suffix: str  # of the archive
    images: int  # number of images in the test set
    folder: str  # of the PNG files in the archive
    encode: Callable[[UInt8[np.ndarray, "h w"]], Image.Image]
    decode: Callable[[Image.Image], UInt8[np.ndarray, "h w"]]  # ValueError: not allowed
    find: Callable[[Path, str], dict[str, Path]]  # (folder, split) to {id: image file}


def _voc_image(labels: UInt8[np.ndarray, "h w"]) -> Image.Image:
    return overlays.indexed(labels, tables.voc_palette(len(tables.VOC_CLASSES)))


def _voc_labels(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    if image.mode != "P":
        raise ValueError(f"the PNG has mode {image.mode!r}; it must be indexed")
    labels = np.array(image)
    if labels.max() >= len(tables.VOC_CLASSES):
        raise ValueError(
            f"the PNG contains the label {labels.max()}; the classes are 0 to "
            f"{len(tables.VOC_CLASSES) - 1}, and void is not allowed"
        )
    return labels


def _voc_images(devkit: Path, split: str) -> dict[str, Path]:
    """Return {id: image file} for the ids of ImageSets/Segmentation/<split>.txt."""
    listing = devkit / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listing.is_file():
        raise FileNotFoundError(
            f"{listing}: there is no such file; --images must be an unpacked "
            "VOCdevkit/VOC2012 folder (of VOC2012test.tar for the test set), and "
            "--split the name of one of its lists"
        )
    images = {}
    for id_ in read_text(listing).split():
        images[id_] = devkit / "JPEGImages" / f"{id_}.jpg"
        if not images[id_].is_file():
            raise FileNotFoundError(
                f"{images[id_]}: there is no such file, but {listing} lists it"
            )
    return images


def _cityscapes_image(labels: UInt8[np.ndarray, "h w"]) -> Image.Image:
    return Image.fromarray(np.array(tables.CITYSCAPES_LABEL_IDS, np.uint8)[labels])


def _cityscapes_labels(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    if image.mode != "L":
        raise ValueError(f"the PNG has mode {image.mode!r}; it must be 8-bit gray")
    if image.size != _CITYSCAPES_SIZE[::-1]:
        raise ValueError(
            f"the PNG has {image.width} x {image.height} pixels; it must have "
            "2048 x 1024"
        )
    labels = tables.cityscapes_train_ids()[np.array(image)]
    if (labels == tables.IGNORE_LABEL).any():
        raise ValueError("the PNG contains a labelId that is not evaluated")
    return labels


def _cityscapes_images(folder: Path, split: str) -> dict[str, Path]:
    """Return {id: image file} for the images of leftImg8bit/<split>/<city>/."""
    suffix = "_leftImg8bit.png"
    images = {
        path.name.removesuffix(suffix): path
        for path in sorted((folder / split).glob(f"*/*{suffix}"))
    }
    if not images:
        raise FileNotFoundError(
            f"{folder / split}: contains no <city>/*{suffix}; --images must be the "
            "unpacked leftImg8bit folder, and --split the name of a folder in it"
        )
    for id_, path in images.items():
        if not _CITYSCAPES_ID.fullmatch(id_):
            raise ValueError(f"{path}: is not named <city>_000000_000000{suffix}")
    return images


RULES = {
    "voc": Rules(
        "voc", ".tar.gz", 1456, _VOC_FOLDER, _voc_image, _voc_labels, _voc_images
    ),
    "cityscapes": Rules(
        "cityscapes",
        ".zip",
        1525,
        "",
        _cityscapes_image,
        _cityscapes_labels,
        _cityscapes_images,
    ),
}
