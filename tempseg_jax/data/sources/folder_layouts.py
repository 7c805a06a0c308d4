"""Find the images and masks of each split in a folder.

These layouts are tried in this order. An image and its mask share their stem; file
extensions are jpg, jpeg or png.

    train/ trainannot/ val/ valannot/ …           SegNet's
    images/train/ masks/train/ images/val/ …      one folder per split
    images/ masks/ train.txt val.txt …            one list of stems per split
    images/ masks/                                a tenth of the stems is val
"""

import collections
import dataclasses
import zlib
from pathlib import Path

from tempseg_jax.io.json_files import read_text

SPLITS = ("train", "val", "test")
_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Folders of images and masks of one split, and the stems that belong to it."""

    images: Path
    masks: Path
    stems: tuple[str, ...] | None = None  # None: all in the folder
    listed_in: str = ""  # the file name of the list of stems, if there is one


def find(root: Path) -> dict[str, Pairs]:
    """Return the pairs of each split.

    Raises:
        FileNotFoundError: If there are no images in any of the layouts.
        ValueError: If a list of stems is malformed, or shares a stem with train.
    """
    splits: dict[str, Pairs] = {}
    for split in SPLITS:
        for images, masks in (
            (root / split, root / f"{split}annot"),
            (root / "images" / split, root / "masks" / split),
        ):
            if images.is_dir() and masks.is_dir():
                splits.setdefault(split, Pairs(images, masks))
    images, masks = root / "images", root / "masks"
    if not splits and images.is_dir() and masks.is_dir():
        splits = _from_lists(root, images, masks) or _from_hashes(images, masks)
    if not any(paths_by_stem(pairs.images) for pairs in splits.values()):
        raise FileNotFoundError(
            f"data.manual_dir={root} contains no images; put .jpg or .png files into"
            " train/ and trainannot/, or into images/ and masks/"
        )
    return splits


def paths_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the images in a folder by their stems, sorted by name."""
    paths: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _SUFFIXES:
            paths.setdefault(path.stem, []).append(path)
    return paths


def _from_lists(root: Path, images: Path, masks: Path) -> dict[str, Pairs]:
    lists = {split: root / f"{split}.txt" for split in SPLITS}
    stems = {s: _read_stems(path) for s, path in lists.items() if path.is_file()}
    train = set(stems.get("train", ()))
    for split in sorted(stems.keys() - {"train"}):
        shared = sorted(train.intersection(stems[split]))
        if shared:
            raise ValueError(
                f"{lists[split]}: {shared[0]!r} is also in {lists['train'].name}"
                f" ({len(shared)} stems are in both); remove it from one of them"
            )
    return {s: Pairs(images, masks, stems[s], lists[s].name) for s in stems}


def _read_stems(path: Path) -> tuple[str, ...]:
    """Return the stems of a list, one per line; file extensions are removed.

    Raises:
        ValueError: If the list is empty, contains a stem twice, or has more than one
            word in a line.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    for line in lines:
        if len(line.split()) > 1:
            raise ValueError(
                f"{path}: the line {line!r} is more than one word; write one stem per"
                " line, without its mask, and rename images with spaces in their names"
            )
    stems = tuple(_stem(Path(line)) for line in lines)
    if not stems:
        raise ValueError(f"{path} is empty; write one stem per line, or delete it")
    stem, count = collections.Counter(stems).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path}: {stem!r} occurs {count} times; keep one")
    return stems


def _stem(path: Path) -> str:
    """Return the name without an image's extension; a stem may contain a dot."""
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def _from_hashes(images: Path, masks: Path) -> dict[str, Pairs]:
    """Split by a hash of the stem: adding an image reassigns at most one other.

    Raises:
        ValueError: If there is only one image.
    """
    stems = sorted(paths_by_stem(images), key=lambda stem: zlib.crc32(stem.encode()))
    if len(stems) == 1:
        raise ValueError(
            f"{images}: {stems[0]!r} is the only image and cannot be in both train and"
            f" val; add an image, or write its stem into {images.parent / 'train.txt'}"
        )
    count = max(1, len(stems) // 10)
    val = set(stems[:count])
    train = tuple(stem for stem in sorted(stems) if stem not in val)
    return {
        "train": Pairs(images, masks, train),
        "val": Pairs(images, masks, tuple(sorted(val))),
    }
