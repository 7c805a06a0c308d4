"""Look at the masks of a folder, and say what they hold and what they may mean."""

import collections
import dataclasses
from pathlib import Path

import numpy as np

from tempseg_jax.data import codec, image_reader
from tempseg_jax.data.image_reader import BadFile
from tempseg_jax.data.problem_files import ProblemFiles, check_on_error
from tempseg_jax.data.sources import folder_layouts, folder_masks, folder_notes
from tempseg_jax.data.sources.folder_masks import is_jpeg
from tempseg_jax.types import IGNORE_LABEL

Value = int | tuple[int, ...]
"""A value of a gray mask, or a color of an RGB mask."""

_MOST = 64  # values or colors that masks may hold together


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a folder holds."""

    root: Path
    images: dict[str, int]  # of each split, with a mask that can be read
    sizes: collections.Counter[tuple[int, int]]  # masks of each (height, width)
    pixels: collections.Counter[Value]  # of each value, in all masks
    of_train: frozenset[Value]  # the values in masks of train
    notes: tuple[str, ...]  # on files that no split uses

    @property
    def is_rgb(self) -> bool:
        """Whether the masks hold colors."""
        return any(isinstance(value, tuple) for value in self.pixels)

    @property
    def validation_split(self) -> str:
        """The split to validate on: `val`, or the best substitute that there is."""
        return next(x for x in ("val", "test", "train") if x in self.images)

    @property
    def void(self) -> bool:
        """Whether 255 is void: it is there, besides several class indices."""
        return IGNORE_LABEL in self.pixels and self._indices(without=IGNORE_LABEL)

    @property
    def classes(self) -> list[Value]:
        """The value or color of each class, in the order of the labels."""
        values = sorted(self.pixels)
        return [v for v in values if not (self.void and v == IGNORE_LABEL)]

    @property
    def absent(self) -> list[Value]:
        """The values or colors of the classes that no mask of train has."""
        return [value for value in self.classes if value not in self.of_train]

    @property
    def are_indices(self) -> bool:
        """Whether the values are the labels already."""
        return not self.is_rgb and self.classes == [*range(len(self.classes))]

    def lines(self) -> list[str]:
        """Return what was found, in words."""
        splits = ", ".join(f"{split} {n:,}" for split, n in self.images.items())
        sides = ", ".join(f"{w}x{h} ({n:,})" for (h, w), n in self.sizes.most_common(5))
        total = self.pixels.total()
        values = ", ".join(
            f"{value} ({self.pixels[value] / total:.2%})"
            for value in sorted(self.pixels)
        )
        kind = "colors (RGB)" if self.is_rgb else "values"
        meaning = "the class indices" if self.are_indices else "not the class indices"
        lines = [
            f"images: {splits}",
            f"sizes: {sides}{', …' if len(self.sizes) > 5 else ''}",
            f"{kind} of the masks, with their shares of the pixels: {values}",
            f"{len(self.classes)} classes; the {kind} are {meaning}",
            "void: 255" if self.void else "void: none found",
        ]
        if self.absent:
            values = ", ".join(map(str, self.absent))
            lines.append(f"in no mask of train, so that they are not learned: {values}")
        if self.validation_split != "val":
            reason = {
                "test": "the best checkpoint is then chosen on the test images",
                "train": "its scores are not those of unseen images",
            }[self.validation_split]
            lines.append(
                f"note: there is no split 'val', so validation uses "
                f"{self.validation_split!r}: {reason}; add val/, or put all images into"
                " images/ and masks/, of which a tenth becomes val"
            )
        return lines + [f"note: {note}" for note in self.notes]

    def _indices(self, *, without: int) -> bool:
        """Return whether the other values are small, as indices are."""
        others = [v for v in self.pixels if v != without]
        return len(others) > 1 and max(others) < _MOST


def survey(root: str | Path, *, on_error: str = "raise") -> Survey:
    """Read every mask of a folder in one of the layouts of `folder_layouts`.

    Args:
        root: The folder.
        on_error: 'raise' refuses masks that are missing or broken; 'skip' skips them.

    Raises:
        FileNotFoundError: If there are no images in any of the layouts.
        ProblemFiles: If masks are missing or broken and `on_error` is 'raise'.
        ValueError: If the masks have more than 64 different values, or only one.
    """
    check_on_error(on_error)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"data.manual_dir={root}: there is no such folder")
    splits = folder_layouts.find(root)
    if "train" not in splits:
        raise ValueError(
            f"{root}: there is no split 'train', only {', '.join(splits)}; the folder "
            "of the training images must be named 'train' or 'training'"
        )
    gray, rgb = None, None  # the last mask of each kind
    images, sizes, problems = {}, collections.Counter(), []
    pixels: collections.Counter[Value] = collections.Counter()
    of_train: set[Value] = set()
    for split, pairs in splits.items():
        found = folder_layouts.paths_by_stem(pairs.images)
        stems = sorted(found) if pairs.stems is None else pairs.stems
        masks = folder_layouts.masks_by_stem(pairs.masks, image_stems=found)
        images[split] = 0
        for stem in stems:
            try:
                path = folder_layouts.only_mask(
                    stem, masks, folder=pairs.masks, image=stem
                )
                if is_jpeg(path):
                    raise BadFile(
                        f"{path}: the mask is a JPEG, which does not keep values; save "
                        "masks as PNG, with one value per class"
                    )
                mask = codec.read_mask(image_reader.read_bytes(path), name=str(path))
                values = _values(mask)
                _check_number(values, path)
            except BadFile as error:
                problems.append(str(error))
                continue
            images[split] += 1
            sizes[mask.shape[:2]] += 1
            gray, rgb = (path, rgb) if mask.ndim == 2 else (gray, path)
            pixels += values
            of_train.update(values if split == "train" else ())
            _check_number(pixels, path)
    if problems and on_error == "raise":
        raise ProblemFiles(problems, where=str(root))
    if not images["train"]:
        raise ValueError(f"{root}: no mask of train can be read; repair some")
    if len(pixels) < 2:
        raise ValueError(
            f"{root}: all masks hold the value {next(iter(pixels))} only; there must be"
            " two classes, so check the masks"
        )
    if len({isinstance(value, tuple) for value in pixels}) > 1:
        if gray is not None:
            raise ValueError(
                f"{root}: some masks are gray ({gray}) and others RGB ({rgb}); convert "
                "those of one kind"
            )
        # Some RGB masks hold only black, white or grays.
        pixels = _as_colors(pixels)
        of_train = set(map(_as_color, of_train))
    notes = folder_notes.left_out(splits)
    return Survey(root, images, sizes, pixels, frozenset(of_train), notes)


def _values(mask: np.ndarray) -> collections.Counter[Value]:
    """Return the number of pixels of each value or color."""
    if mask.ndim == 3 and (mask == mask[..., :1]).all():
        mask = mask[..., 0]  # gray that was saved as RGB
    if mask.ndim == 2:
        counts = np.bincount(mask.ravel(), minlength=256)
        return collections.Counter(
            {int(v): int(counts[v]) for v in counts.nonzero()[0]}
        )
    values, counts = np.unique(folder_masks.packed(mask), return_counts=True)
    colors = folder_masks.unpacked(values)
    return collections.Counter(dict(zip(colors, counts.tolist(), strict=True)))


def _as_colors(pixels: collections.Counter[Value]) -> collections.Counter[Value]:
    """Return the numbers of pixels by color."""
    colors: collections.Counter[Value] = collections.Counter()
    for value, count in pixels.items():
        colors[_as_color(value)] += count
    return colors


def _as_color(value: Value) -> tuple[int, ...]:
    """Return the color of a value; that of a gray value v is (v, v, v)."""
    return value if isinstance(value, tuple) else (value,) * 3


def _check_number(pixels: collections.Counter[Value], path: Path) -> None:
    if len(pixels) > _MOST:
        raise BadFile(
            f"{path}: the masks hold {len(pixels)} different values or colors, as JPEGs"
            " and smoothed outlines do; save masks as PNG, with one value per class, or"
            " write the config by hand"
        )
