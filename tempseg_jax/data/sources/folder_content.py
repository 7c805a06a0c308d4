"""What the masks of a split hold, and checks of it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data.sources import folder_masks
from tempseg_jax.data.sources.folder_masks import MaskRules
from tempseg_jax.types import IGNORE_LABEL

_SHOWN = 12  # values or colors in a message


class Content:
    """Counts of masks, labels and mask values; `add` is called with every mask."""

    def __init__(self):
        self.masks = 0
        self._pixels = np.zeros(256, np.int64)  # of each label
        self._values: set[int | tuple[int, ...]] = set()  # or colors, of the masks
        self._has_void_255 = False  # 255 may be a class: that of a gray level

    @property
    def highest(self) -> int:
        """The highest class; -1 if there is none."""
        present = np.flatnonzero(self._pixels[:IGNORE_LABEL])
        return int(present[-1]) if present.size else -1

    def add(
        self, mask: UInt8[np.ndarray, "h w *c"], label: UInt8[np.ndarray, "h w"]
    ) -> None:
        """Count a mask and its label."""
        self.masks += 1
        self._pixels += np.bincount(label.ravel(), minlength=256)
        if mask.ndim == 2:
            values = np.flatnonzero(np.bincount(mask.ravel())).tolist()
            self._values.update(values)
            if IGNORE_LABEL in values and not self._has_void_255:
                self._has_void_255 = IGNORE_LABEL in label[mask == IGNORE_LABEL]
        elif len(self._values) <= _SHOWN:
            # Unique rows take 70 times as long: 1.4 s for a megapixel.
            colors = np.unique(folder_masks.packed(mask))
            self._values.update(folder_masks.unpacked(colors[: _SHOWN + 1]))

    def check_labeled(self, *, where: str) -> None:
        """Check that at least one pixel is not void.

        Raises:
            ValueError: If all are.
        """
        if not self._pixels[:IGNORE_LABEL].any():
            remedy = "set data.options.mask_values to the class of each value"
            if self._is_rgb:
                remedy = "correct data.options.class_colors"
            raise ValueError(
                f"{where}: every pixel of every mask is void; {self._holds()}; {remedy}"
            )

    def check_present(
        self, names: Sequence[str], *, where: str, rules: MaskRules
    ) -> None:
        """Check that every class occurs, and that one class was not found by itself.

        Raises:
            ValueError: If not; the message says what the masks hold, and the remedy.
        """
        absent = [repr(name) for k, name in enumerate(names) if not self._pixels[k]]
        if len(absent) == 1:
            problem = f"the class {absent[0]} occurs in no mask"
        elif absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            problem = f"the classes {', '.join(absent[:5])}{more} occur in no mask"
        elif len(names) == 1 and not rules.names and rules.void_index is None:
            problem = f"the only class is {names[0]!r}"
        else:
            return
        raise ValueError(
            f"{where}: {problem}; {self._holds()}; {self._remedy(names, rules)}, or go"
            " on with data.options.allow_absent_classes=true"
        )

    def _holds(self) -> str:
        values = (
            sorted(self._values, key=repr) if self._is_rgb else sorted(self._values)
        )
        shown = ", ".join(map(str, values[:_SHOWN]))
        more = ", …" if len(values) > _SHOWN else ""
        void = f"; {IGNORE_LABEL} is void" if self._has_void_255 else ""
        kind = "colors" if self._is_rgb else "values"
        return f"the masks hold the {kind} {shown}{more}{void}"

    @property
    def _is_rgb(self) -> bool:
        return any(isinstance(value, tuple) for value in self._values)

    def _remedy(self, names: Sequence[str], rules: MaskRules) -> str:
        wanted = len(rules.names) if rules.names else len(self._values)
        if self._is_rgb or len(self._values) != wanted or wanted > _SHOWN:
            return "correct data.options.class_names, class_colors or mask_values"
        pairs = ", ".join(f'"{v}": {k}' for k, v in enumerate(sorted(self._values)))
        return f"remap them with data.options.mask_values={{{pairs}}}"
