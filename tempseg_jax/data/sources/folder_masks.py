"""What the pixels of a mask mean: class indices, gray levels or colors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32, UInt8

from tempseg_jax.data.image_reader import BadFile
from tempseg_jax.types import IGNORE_LABEL

MOST_CLASSES = IGNORE_LABEL
"""Labels are bytes, of which one is void."""

_MANY = 64  # values in one mask; more are the noise of JPEG, or a photograph


class MaskRules:
    """Converts masks to labels.

    Args:
        void_index: The mask value that is void, besides 255; None if there is none.
        class_names: One name per class; None names the classes by their numbers.
        class_colors: RGB color of each class. If all are gray, they are also the values
            of gray masks without `mask_values`.
        mask_values: Class of each value of gray masks, 255 for void; values that are
            not listed are an error. Keys may be strings, as in JSON.

    Raises:
        ValueError: If an option has a value that is not allowed.
    """

    def __init__(
        self,
        *,
        void_index: int | None,
        class_names: Sequence[str] | None,
        class_colors: Sequence[Sequence[int]] | None,
        mask_values: Mapping[int | str, int] | None,
    ):
        self.names = tuple(class_names) if class_names else None
        if self.names and len(self.names) > MOST_CLASSES:
            raise ValueError(
                f"data.options.class_names: {len(self.names)} classes are more than"
                f" the {MOST_CLASSES} that a byte can hold besides void"
            )
        repeated = [x for x, n in Counter(self.names or ()).items() if n > 1]
        if repeated:
            raise ValueError(
                f"data.options.class_names: {repeated[0]!r} is the name of several"
                " classes; give each its own, or merge them with data.options"
                ".mask_values"
            )
        if void_index is not None and void_index not in range(256):
            raise ValueError(
                f"data.options.void_index: {void_index!r} is no value of an 8-bit mask;"
                " give a number from 0 to 255. With RGB masks, any of them makes all"
                " colors void that are not in data.options.class_colors"
            )
        self.void_index = void_index
        self.colors = checked_colors(class_colors, class_names=self.names)
        self.values = _checked_values(mask_values, class_names=self.names)

    def options(self) -> list[object]:
        """Return the options, for a digest."""
        colors = None if self.colors is None else self.colors.tolist()
        options: list[object] = [self.void_index, self.names, colors]
        if self.values is not None:  # else the digest of versions without this option
            options.append(sorted(self.values.items()))
        return options

    def label(
        self, mask: UInt8[np.ndarray, "h w *c"], path: Path
    ) -> UInt8[np.ndarray, "h w"]:
        """Return the label of a mask that `codec.read_mask` read.

        Raises:
            BadFile: If the mask has a value or a color that is no class and not void.
        """
        if mask.ndim == 3 and self.colors is None and (mask == mask[..., :1]).all():
            mask = mask[..., 0]  # gray that was saved as RGB
        if mask.ndim == 3:
            return self._from_colors(mask, path)
        if self.values is not None:
            return self._from_table(mask, self.values, path)
        if self.colors is not None and (self.colors == self.colors[:, :1]).all():
            levels = {int(c[0]): k for k, c in enumerate(self.colors)}
            return self._from_table(mask, levels, path)
        label = mask
        if self.void_index is not None:
            label = np.where(mask == self.void_index, np.uint8(IGNORE_LABEL), mask)
        self._check_indices(label, path)
        return label

    def _check_indices(self, label: UInt8[np.ndarray, "h w"], path: Path) -> None:
        values = np.unique(label[label != IGNORE_LABEL])
        count = len(self.names) if self.names else MOST_CLASSES
        bad = values[values >= count]
        if not bad.size and (self.names or values.size <= _MANY):
            return
        if values.size > _MANY or is_jpeg(path):
            raise BadFile(
                f"{path}: the mask has {values.size} different values and looks like a"
                " JPEG, which does not keep them; save masks as PNG, and threshold this"
                " one to the values of its classes"
            )
        raise BadFile(
            f"{path}: the value {bad[-1]} is not one of the {count} classes; if it is"
            " void, set data.options.void_index to it, or set data.options.mask_values"
            " to the class of each value"
        )

    def _from_table(
        self, mask: UInt8[np.ndarray, "h w"], classes: Mapping[int, int], path: Path
    ) -> UInt8[np.ndarray, "h w"]:
        table = np.full(256, -1, np.int16)
        table[IGNORE_LABEL] = IGNORE_LABEL
        if self.void_index is not None:
            table[self.void_index] = IGNORE_LABEL
        table[list(classes)] = list(classes.values())
        label = table[mask]
        unlisted = np.unique(mask[label < 0])
        if unlisted.size:
            option, remedy = "class_colors", ""
            if self.values is not None:
                option, remedy = "mask_values", "; give it a class there"
            remedy += "; if it is void, set data.options.void_index to it"
            jpeg = (
                "; it looks like a JPEG, which does not keep values: threshold it"
                if is_jpeg(path) or unlisted.size > _MANY
                else ""
            )
            raise BadFile(
                f"{path}: the value {unlisted[0]} is not in data.options.{option}"
                f" ({', '.join(map(str, sorted(classes)))}){jpeg or remedy}"
            )
        return label.astype(np.uint8)

    def _from_colors(
        self, mask: UInt8[np.ndarray, "h w 3"], path: Path
    ) -> UInt8[np.ndarray, "h w"]:
        if self.colors is None:
            raise BadFile(
                f"{path} is an RGB mask; give the color of each class, as in"
                " data.options.class_colors=[[0, 0, 0], [128, 64, 0]]"
            )
        table = np.full(1 << 24, -1, np.int16)
        table[packed(self.colors)] = np.arange(len(self.colors))
        index = table[packed(mask)]
        unlisted = index < 0
        if unlisted.any() and self.void_index is None:
            color = mask[unlisted][0].tolist()
            raise BadFile(
                f"{path}: the color {color} is not in data.options.class_colors; add"
                " it, or set data.options.void_index to make unlisted colors void"
            )
        return np.where(unlisted, IGNORE_LABEL, index).astype(np.uint8)


def is_jpeg(path: Path) -> bool:
    """Return whether the name is a JPEG's, which does not keep the values of a mask."""
    return path.suffix.lower() in (".jpg", ".jpeg")


def _checked_values(
    mask_values: Mapping[int | str, int] | None, *, class_names: Sequence[str] | None
) -> dict[int, int] | None:
    if not mask_values:
        return None
    try:
        values = {int(value): int(k) for value, k in dict(mask_values).items()}
    except (TypeError, ValueError):
        values = {-1: -1}
    classes = {k for k in values.values() if k != IGNORE_LABEL}
    count = len(class_names) if class_names else MOST_CLASSES
    if not all(0 <= v <= 255 for v in values) or not classes <= {*range(count)}:
        names = f" (data.options.class_names has {count})" if class_names else ""
        raise ValueError(
            f"data.options.mask_values={mask_values}: each mask value, 0 to 255, must"
            f" have a class from 0 to {count - 1}{names}, or {IGNORE_LABEL} for void"
        )
    return values


def checked_colors(
    colors: Sequence[Sequence[int | float]] | None, *, class_names: Sequence[str] | None
) -> UInt8[np.ndarray, "k 3"] | None:
    """Return the colors as an array; None if there are none.

    Raises:
        ValueError: If a color is not three whole numbers from 0 to 255, or their number
            is not that of the names.
    """
    if not colors:
        return None
    table = np.array(colors)
    whole = np.issubdtype(table.dtype, np.integer)
    if (
        table.ndim != 2
        or table.shape[1] != 3
        or not whole
        or table.min() < 0
        or table.max() > 255
    ):
        raise ValueError(
            f"data.options.class_colors={colors}: each color must be three whole"
            " numbers from 0 to 255"
        )
    if class_names is None or len(class_names) != len(table):
        raise ValueError(
            f"data.options.class_colors has {len(table)} colors, but"
            f" data.options.class_names has {len(class_names or ())} names; list one"
            " color per name"
        )
    return table.astype(np.uint8)


def packed(colors: UInt8[np.ndarray, "*b 3"]) -> Int32[np.ndarray, "*b"]:
    """Return each RGB color as one integer."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def unpacked(values: Int[np.ndarray, "n"]) -> list[tuple[int, int, int]]:
    """Return the colors that `packed` has made integers of."""
    return [(v >> 16, v >> 8 & 255, v & 255) for v in values.tolist()]
