"""Your own folder of images and masks (CamVid, as SegNet lays it out, is one).

Layouts, tried in this order; an image and its mask share their stem, and the
extensions are jpg, jpeg or png:

    train/ trainannot/ val/ valannot/ …           SegNet's
    images/train/ masks/train/ images/val/ …      a folder a split
    images/ masks/ train.txt val.txt …            a list of stems a split
    images/ masks/                                every tenth stem is val
"""

import collections
import dataclasses
import functools
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import codec, labels
from tempseg_jax.data.sources.base import Entry, Record, digest, stat_listing
from tempseg_jax.types import IGNORE_LABEL

SPLITS = ("train", "val", "test")
_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Where one split's files are, and which of them it takes."""

    images: Path
    masks: Path
    stems: tuple[str, ...] | None = None  # None: all
    listed_in: str = ""


class Folder:
    """A folder in one of the layouts above.

    Args:
        manual_dir: the folder.
        void_index: the mask value that is not scored, beside 255; None if there is
            none.
        class_names: one a class, in the order of the mask's values; None takes the
            highest value found as the last class and numbers them.
        class_colors: RGB of each class; needed where masks are RGB, and otherwise only
            for pictures; None is VOC's color map. Other colors are void when
            `void_index` is given, else an error.
    """

    name = "folder"

    def __init__(
        self,
        *,
        manual_dir: str | None,
        void_index: int | None = None,
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[Sequence[int]] | None = None,
    ):
        if not manual_dir:
            raise ValueError(
                "data.manual_dir is not set; give the folder of images and masks"
            )
        root = Path(manual_dir)
        if not root.is_dir():
            raise FileNotFoundError(f"data.manual_dir={manual_dir}: no such folder")
        self.where = manual_dir
        self._void_index = void_index
        self._names = tuple(class_names) if class_names else None
        self._colors = _checked_colors(class_colors, class_names=self._names)
        self._pairs = _find_layout(root)
        self._highest = -1
        self.splits = tuple(self._pairs)

    def fingerprint(self) -> str:
        """Return a digest of options and of every file's name, size and time."""
        folders = {
            p for pairs in self._pairs.values() for p in (pairs.images, pairs.masks)
        }
        listings = [(f.name, stat_listing(f)) for f in sorted(folders)]
        stems = [(split, pairs.stems) for split, pairs in self._pairs.items()]
        colors = None if self._colors is None else self._colors.tolist()
        return digest(self._void_index, self._names, colors, stems, listings)

    def split_expression(self, split: str) -> str:
        """Return `split` if it is one of the folder's."""
        if split not in self.splits:
            raise ValueError(
                f"{self.where} has no split {split!r}; it has {', '.join(self.splits)}"
            )
        return split

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the pairs of one split, by stem, or in the order of its list."""
        pairs = self._pairs[split]
        images, masks = _by_stem(pairs.images), _by_stem(pairs.masks)
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
        pairs: _Pairs,
        images: dict[str, list[Path]],
        masks: dict[str, list[Path]],
    ) -> Record:
        image = _only(stem, images, folder=pairs.images, listed_in=pairs.listed_in)
        mask = _only(stem, masks, folder=pairs.masks, listed_in=f"image {image.name}")
        data = image.read_bytes()
        size = codec.image_size(data, name=str(image))
        label = self._label(codec.read_mask(mask.read_bytes(), name=str(mask)), mask)
        codec.check_label(label, size=size, num_classes=IGNORE_LABEL, name=str(mask))
        return {"id": stem, "image": data, "label": codec.encode_label(label)}

    def _label(
        self, mask: UInt8[np.ndarray, "h w *c"], path: Path
    ) -> UInt8[np.ndarray, "h w"]:
        if mask.ndim == 3:
            mask = self._from_colors(mask, path)
        label = mask
        if self._void_index is not None:
            label = np.where(mask == self._void_index, np.uint8(IGNORE_LABEL), mask)
        found = np.unique(label[label != IGNORE_LABEL])
        highest = int(found[-1]) if found.size else -1
        if self._names and highest >= len(self._names):
            raise codec.BadFile(
                f"{path}: value {highest} is no class ({len(self._names)} classes, void"
                f" {self._void_index}); set data.options.void_index if it is void"
            )
        self._highest = max(self._highest, highest)
        return label

    def _from_colors(
        self, mask: UInt8[np.ndarray, "h w 3"], path: Path
    ) -> UInt8[np.ndarray, "h w"]:
        if self._colors is None:
            raise codec.BadFile(
                f"{path}: an RGB mask; set data.options.class_colors to tell its"
                " classes"
            )
        table = np.full(1 << 24, -1, np.int16)
        table[_packed(self._colors)] = np.arange(len(self._colors))
        index = table[_packed(mask)]
        unknown = index < 0
        if unknown.any() and self._void_index is None:
            color = mask[unknown][0].tolist()
            raise codec.BadFile(
                f"{path}: color {color} is not in data.options.class_colors"
            )
        return np.where(unknown, IGNORE_LABEL, index).astype(np.uint8)


def _find_layout(root: Path) -> dict[str, _Pairs]:
    """Return the splits found, or say what was looked for."""
    found = {}
    for split in SPLITS:
        for images, masks in (
            (root / split, root / f"{split}annot"),
            (root / "images" / split, root / "masks" / split),
        ):
            if images.is_dir() and masks.is_dir():
                found.setdefault(split, _Pairs(images, masks))
    images, masks = root / "images", root / "masks"
    if not found and images.is_dir() and masks.is_dir():
        found = _listed(root, images, masks) or _every_tenth(images, masks)
    if not any(_by_stem(pairs.images) for pairs in found.values()):
        raise FileNotFoundError(
            f"data.manual_dir={root}: no images found; expected train/ with"
            " trainannot/, or images/ with masks/, holding .jpg or .png files"
        )
    return found


def _listed(root: Path, images: Path, masks: Path) -> dict[str, _Pairs]:
    lists = {split: root / f"{split}.txt" for split in SPLITS}
    stems = {s: _read_stems(path) for s, path in lists.items() if path.is_file()}
    train = set(stems.get("train", ()))
    for split in sorted(stems.keys() - {"train"}):
        both = sorted(train.intersection(stems[split]))
        if both:
            raise ValueError(
                f"{lists[split]}: {both[0]!r} is in {lists['train'].name} too"
                f" ({len(both)} such stems); take it out of one of them"
            )
    return {s: _Pairs(images, masks, stems[s], lists[s].name) for s in stems}


def _read_stems(path: Path) -> tuple[str, ...]:
    """Return the stems of a list, one a line; their extensions may be given.

    Raises:
        ValueError: it holds none, one twice, or two words in a line.
    """
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    for line in lines:
        if len(line.split()) > 1:
            raise ValueError(
                f"{path}: {line!r} is more than one word; give one stem a line, without"
                " its mask, and rename images whose names hold spaces"
            )
    stems = tuple(_stem(Path(line)) for line in lines)
    if not stems:
        raise ValueError(f"{path}: it is empty; give a stem a line, or remove it")
    stem, count = collections.Counter(stems).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path}: {stem!r} is in it {count} times; keep one")
    return stems


def _stem(path: Path) -> str:
    """Return the name without an image's extension; a dot may be part of a stem."""
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def _every_tenth(images: Path, masks: Path) -> dict[str, _Pairs]:
    """Split by a hash of the stem, so that a new file moves at most one other.

    Raises:
        ValueError: there is one image, which cannot be in both splits.
    """
    stems = sorted(_by_stem(images), key=lambda stem: zlib.crc32(stem.encode()))
    if len(stems) == 1:
        raise ValueError(
            f"{images}: {stems[0]!r} alone cannot be train and val; add an image, or"
            f" name it in {images.parent / 'train.txt'}"
        )
    count = max(1, len(stems) // 10)
    val = set(stems[:count])
    return {
        "train": _Pairs(images, masks, tuple(s for s in sorted(stems) if s not in val)),
        "val": _Pairs(images, masks, tuple(sorted(val))),
    }


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    return found


def _only(
    stem: str, found: dict[str, list[Path]], *, folder: Path, listed_in: str
) -> Path:
    paths = found.get(stem, [])
    if not paths:
        raise codec.BadFile(f"{folder}/{stem}.*: no such file, for {listed_in}")
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise codec.BadFile(f"{folder}: {names} share a stem; keep one of them")
    return paths[0]


def _checked_colors(
    colors: Sequence[Sequence[int]] | None, *, class_names: Sequence[str] | None
) -> UInt8[np.ndarray, "k 3"] | None:
    if not colors:
        return None
    table = np.array(colors)
    if table.ndim != 2 or table.shape[1] != 3 or table.min() < 0 or table.max() > 255:
        raise ValueError(
            "data.options.class_colors: each must be three numbers from 0 to 255"
        )
    if class_names is None or len(class_names) != len(table):
        count = len(class_names or ())
        raise ValueError(
            f"data.options.class_colors has {len(table)} colors for {count}"
            " class_names; one each is needed"
        )
    return table.astype(np.uint8)


def _packed(colors: UInt8[np.ndarray, "*b 3"]) -> np.ndarray:
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue
