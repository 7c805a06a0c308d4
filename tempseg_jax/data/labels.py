"""Class names, colors and id tables of the published datasets."""

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.types import IGNORE_LABEL

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv monitor",
)

# labelId, name, color, in the order of trainId (cityscapesscripts/helpers/labels.py).
_CITYSCAPES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)

CITYSCAPES_CLASSES = tuple(name for _, name, _ in _CITYSCAPES)
CITYSCAPES_LABEL_IDS = tuple(label_id for label_id, _, _ in _CITYSCAPES)
"""The official labelId of each trainId, which the test server expects."""

CITYSCAPES_HIGHEST_LABEL_ID = 33

VOID_COLOR = (224, 224, 192)
"""RGB of void pixels, as in PASCAL VOC's color map."""


def cityscapes_palette() -> UInt8[np.ndarray, "19 3"]:
    """Return the official RGB colors, one row per trainId."""
    return np.array([color for _, _, color in _CITYSCAPES], np.uint8)


def cityscapes_train_ids() -> UInt8[np.ndarray, "256"]:
    """Return the table from labelId to trainId; other labelIds are void."""
    table = np.full(256, IGNORE_LABEL, np.uint8)
    table[list(CITYSCAPES_LABEL_IDS)] = np.arange(len(CITYSCAPES_LABEL_IDS))
    return table


def voc_palette(num_classes: int) -> UInt8[np.ndarray, "k 3"]:
    """Return VOC's color map: the bits of the class index, spread over the channels.

    The colors of up to 256 classes are distinct (VOCcode/VOClabelcolormap.m).
    """
    index = np.arange(num_classes)[:, None]
    color = np.zeros((num_classes, 3), np.int64)
    for bit in range(8):
        color |= ((index >> (3 * bit + np.arange(3))) & 1) << (7 - bit)
    return color.astype(np.uint8)


def color_labels(
    labels: UInt8[np.ndarray, "*b"], palette: UInt8[np.ndarray, "k 3"]
) -> UInt8[np.ndarray, "*b 3"]:
    """Return the RGB image of a label: classes in the palette's colors, void in VOC's.

    Values that are neither a class nor void are also painted in the color of void.
    """
    table = np.full((256, 3), VOID_COLOR, np.uint8)
    table[: len(palette)] = palette
    table[IGNORE_LABEL] = VOID_COLOR
    return table[labels]
