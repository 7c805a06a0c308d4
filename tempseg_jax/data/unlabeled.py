"""Training images whose labels are not used."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Bool, UInt8

from tempseg_jax.data.catalog import Split
from tempseg_jax.data.tiles import Tiles
from tempseg_jax.data.transforms import CropSource
from tempseg_jax.types import IGNORE_LABEL, Batch


class Unlabeled(NamedTuple):
    """Images whose labels are not used, beside the labeled ones of each batch."""

    split: Split
    tiles: Tiles | None
    batch_size: int  # images per step, over all processes


class UnlabeledPart(TypedDict):
    """The fields of a `Batch` for such images."""

    unlabeled_image: UInt8[np.ndarray, "u h w 3"]
    unlabeled_visible: Bool[np.ndarray, "u h w"]


@dataclasses.dataclass(frozen=True)
class WithoutLabel:
    """Decode examples and replace their labels: a crop must not depend on them."""

    decode: Callable[[int], CropSource]

    def __call__(self, index: int) -> CropSource:
        """Return the image, with a label that has no void."""
        source = self.decode(index)
        label = np.zeros(source["label"].shape, np.uint8)
        return {"image": source["image"], "label": label}


def as_unlabeled(batch: Batch) -> UnlabeledPart:
    """Return crops of `WithoutLabel`, in whose labels only the padding is void."""
    return {
        "unlabeled_image": batch["image"],
        "unlabeled_visible": batch["label"] != IGNORE_LABEL,
    }
