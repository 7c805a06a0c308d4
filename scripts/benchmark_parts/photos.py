"""Make a small dataset in Cityscapes' layout, to measure without the real one.

Noise does not compress as photographs do, so the images are tiled from photographs.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import labels
from tempseg_jax.data.codec import decode_image, decode_label
from tempseg_jax.data.sources.cityscapes import IMAGES, LABELS
from tempseg_jax.data.sources.scenes import Scenes

HEIGHT, WIDTH = 1024, 2048
_CELL = 342, 512  # of a photograph, about as large as those of VOC
_SUFFIXES = {".jpg", ".jpeg", ".png"}

Pair = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]


def write(folder: Path, *, photos: Path | None, count: int) -> str:
    """Write images of 2048x1024 pixels with labels, as the train split.

    Args:
        folder: Gets leftImg8bit/ and gtFine/.
        photos: Folder of photographs, each of which becomes a part of an image, in
            turn; None uses the generated scenes.
        count: Number of images.

    Returns:
        What the images are made of.

    Raises:
        ValueError: If the folder contains no photograph.
        OSError: If a file cannot be read or written.
    """
    pairs = _scene_pairs() if photos is None else _photo_pairs(photos)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = [pool.submit(_save, folder, i, *_tile(pairs)) for i in range(count)]
    for future in written:
        future.result()
    return "generated scenes, tiled" if photos is None else f"{photos}, tiled"


def _photo_pairs(folder: Path) -> Iterator[Pair]:
    """Yield one cell of each photograph, endlessly; regions of equal brightness are
    the classes of its label.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
    if not paths:
        raise ValueError(f"--photos={folder} contains no .jpg, .jpeg or .png file")
    height, width = _CELL
    while True:
        for path in paths:
            photo = decode_image(path.read_bytes(), name=str(path))[:height, :width]
            bottom, right = height - photo.shape[0], width - photo.shape[1]
            image = cv2.copyMakeBorder(photo, 0, bottom, 0, right, cv2.BORDER_REFLECT)
            gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            small = cv2.resize(gray, (16, 11), interpolation=cv2.INTER_AREA)
            smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
            yield image, smooth // 14  # 0 to 18


def _scene_pairs() -> Iterator[Pair]:
    entries = Scenes().entries("train")
    while True:
        for entry in entries:
            record = entry.load()
            yield (
                decode_image(record["image"], name=entry.id),
                # Void is no class that the label file of Cityscapes could name.
                np.minimum(decode_label(record["label"], name=entry.id), 18),
            )


def _tile(pairs: Iterator[Pair]) -> Pair:
    """Fill one image from left to right and from top to bottom."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    label = np.empty((HEIGHT, WIDTH), np.uint8)
    top = 0
    while top < HEIGHT:
        left = 0
        while left < WIDTH:
            pixels, classes = next(pairs)
            target = np.s_[top : top + len(classes), left : left + classes.shape[1]]
            height, width = label[target].shape
            image[target] = pixels[:height, :width]
            label[target] = classes[:height, :width]
            left += classes.shape[1]
        top += len(classes)
    return image, label


def _save(
    folder: Path,
    index: int,
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
) -> None:
    label_ids = np.array(labels.CITYSCAPES_LABEL_IDS, np.uint8)[label]
    files = {
        f"{IMAGES}/train/made/made_{index:06}_leftImg8bit.png": image[..., ::-1],
        f"{LABELS}/train/made/made_{index:06}_gtFine_labelIds.png": label_ids,
    }
    for name, pixels in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
