"""Find the images and masks of each split in a folder.

These layouts are tried in this order; IMAGES and MASKS are any of the names below, and
a split may have any of its names.

    train/ trainannot/ val/ valannot/ …           also train_labels/, train_masks/
    IMAGES/train/ MASKS/train/ IMAGES/val/ …      one folder per split
    train/IMAGES/ train/MASKS/ val/IMAGES/ …      one folder per split
    IMAGES/ MASKS/ train.txt val.txt …            one list of stems per split
    IMAGES/ MASKS/                                a tenth of the stems is val

Files may be in subfolders. An image and its mask have the same path and stem, but the
mask's stem may end with one of MASK_SUFFIXES if it is not the stem of another image.
"""

import collections
import dataclasses
import zlib
from collections.abc import Container, Iterator, Set
from pathlib import Path

from tempseg_jax.data.image_reader import ENDINGS, BadFile
from tempseg_jax.data.sources.folder_masks import is_jpeg
from tempseg_jax.io.folder_files import files_in
from tempseg_jax.io.json_files import read_text

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The splits, and the names that their folders and lists may have."""

IMAGES = ("images", "image", "imgs", "img", "img_dir", "JPEGImages")
MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annots", "ann_dir"),
    "SegmentationClass",
)
MASK_SUFFIXES = ("_mask", "_masks", "_L", "_label", "_labels", "_gt", "_seg")
_LISTS = (".", "splits", "ImageSets/Segmentation")  # folders of lists of stems


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
    for split, names in SPLITS.items():
        for name in names:
            for images, masks in _candidates(root, name):
                if _has_images(images) and masks.is_dir():
                    splits.setdefault(split, Pairs(images, masks))
    if not splits:
        for images, masks in _product(root, root):
            if _has_images(images) and masks.is_dir():
                splits = _from_lists(root, images, masks) or _from_hashes(images, masks)
                break
    if not splits:
        raise FileNotFoundError(
            f"data.manual_dir={root} contains no images in a layout that is read; put"
            f" images ({', '.join(ENDINGS)}) and their masks into train/ and"
            " trainannot/, into train/images/ and train/masks/, or into images/ and"
            f" masks/ (docs/data.md lists all layouts, whose names are case-sensitive);"
            f" there is: {_content(root)}"
        )
    return splits


def paths_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the images in a folder by their stems, sorted by name.

    The stem of a file in a subfolder includes the path from `folder`. Hidden files,
    such as the metadata that macOS writes, are ignored.
    """
    paths: dict[str, list[Path]] = {}
    for path in files_in(folder):
        if path.suffix.lower() in ENDINGS and path.is_file():
            stem = path.relative_to(folder).with_suffix("").as_posix()
            paths.setdefault(stem, []).append(path)
    return paths


def masks_by_stem(
    folder: Path, *, image_stems: Container[str]
) -> dict[str, list[Path]]:
    """Return the masks in a folder by the stems of their images.

    An image has several masks if their stems differ by a suffix only; `only` refuses
    them.

    Args:
        folder: The folder of the masks.
        image_stems: The stems of all images: `road_L` is the mask of the image
            `road_L` if there is one, and otherwise of `road`.
    """
    exact = paths_by_stem(folder)
    masks = {stem: list(paths) for stem, paths in exact.items()}
    for stem, paths in exact.items():
        if stem in image_stems:
            continue
        for suffix in MASK_SUFFIXES:
            if stem.endswith(suffix):
                masks.setdefault(stem.removesuffix(suffix), []).extend(paths)
    return masks


def is_ambiguous(pairs: Pairs) -> bool:
    """Return whether a mask could be of two images by its name, or an image has two."""
    images = paths_by_stem(pairs.images)
    masks = masks_by_stem(pairs.masks, image_stems=images)
    several = {stem for stem, paths in masks.items() if len(paths) > 1}
    shorter = {
        stem.removesuffix(suffix)
        for stem in images
        for suffix in MASK_SUFFIXES
        if stem.endswith(suffix)
    }
    return not images.keys().isdisjoint(several | shorter)


def only_mask(
    stem: str, masks: dict[str, list[Path]], *, folder: Path, image: str
) -> Path:
    """Return the only mask of a stem.

    Raises:
        BadFile: If there is none, or more than one.
    """
    if not masks.get(stem):
        endings = ", ".join(x for x in ENDINGS if not is_jpeg(Path(f"x{x}")))
        raise BadFile(
            f"{folder}/{stem}.* does not exist, the mask of image {image}; a mask has "
            f"the name of its image, or that name and one of {', '.join(MASK_SUFFIXES)}"
            f", with the ending {endings}"
        )
    return only(stem, masks, folder=folder, needed_by=f"image {image}")


def only(
    stem: str, paths_by_stem: dict[str, list[Path]], *, folder: Path, needed_by: str
) -> Path:
    """Return the only file of a stem.

    Raises:
        BadFile: If there is none, or more than one.
    """
    paths = paths_by_stem.get(stem, [])
    if not paths:
        raise BadFile(
            f"{folder}/{stem}.* does not exist; {needed_by} needs it, with the ending "
            f"{', '.join(ENDINGS)}"
        )
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise BadFile(f"{folder}: {names} are all of {stem!r}; keep one of them")
    return paths[0]


def _candidates(root: Path, split: str) -> Iterator[tuple[Path, Path]]:
    """Yield the folders of images and of masks that a split may have."""
    for annotations in (f"{split}annot", f"{split}_labels", f"{split}_masks"):
        yield root / split, root / annotations
    for images, masks in _product(root, root):
        yield images / split, masks / split
    yield from _product(root / split, root / split)


def _product(images: Path, masks: Path) -> Iterator[tuple[Path, Path]]:
    yield from ((images / i, masks / m) for i in IMAGES for m in MASKS)


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and bool(paths_by_stem(folder))


def _content(root: Path) -> str:
    names = sorted(
        f"{x.name}/" if x.is_dir() else x.name
        for x in root.iterdir()
        if not x.name.startswith(".")
    )
    return ", ".join([*names[:8], *(["…"] if len(names) > 8 else [])]) or "nothing"


def _from_lists(root: Path, images: Path, masks: Path) -> dict[str, Pairs]:
    lists = {
        split: path
        for split, names in SPLITS.items()
        for path in reversed([root / x / f"{n}.txt" for x in _LISTS for n in names])
        if path.is_file()
    }
    known = paths_by_stem(images).keys()
    stems = {split: _read_stems(path, known) for split, path in lists.items()}
    train = set(stems.get("train", ()))
    for split in sorted(stems.keys() - {"train"}):
        shared = sorted(train.intersection(stems[split]))
        if shared:
            raise ValueError(
                f"{lists[split]}: {shared[0]!r} is also in {lists['train'].name}"
                f" ({len(shared)} stems are in both); remove it from one of them"
            )
    return {s: Pairs(images, masks, stems[s], lists[s].name) for s in stems}


def _read_stems(path: Path, known: Set[str]) -> tuple[str, ...]:
    """Return the stems of a list, one per line; file extensions are removed.

    A line that is a path counts by its last parts, as many as a known stem has.

    Raises:
        ValueError: If the list is not UTF-8 text, is empty, contains a stem twice, or
            has more than one word in a line.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    for line in lines:
        if len(line.split()) > 1:
            raise ValueError(
                f"{path}: the line {line!r} is more than one word; write one stem per"
                " line, without its mask, and rename images with spaces in their names"
            )
    stems = tuple(_known_stem(_without_ending(Path(line)), known) for line in lines)
    if not stems:
        raise ValueError(f"{path} is empty; write one stem per line, or delete it")
    stem, count = collections.Counter(stems).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path}: {stem!r} occurs {count} times; keep one")
    return stems


def _without_ending(path: Path) -> Path:
    """Return the path without an image's extension; a stem may contain a dot."""
    return path.with_suffix("") if path.suffix.lower() in ENDINGS else path


def _known_stem(path: Path, known: Set[str]) -> str:
    """Return the longest end of the path that is a known stem, or else its name."""
    ends = ("/".join(path.parts[i:]) for i in range(len(path.parts)))
    return next((end for end in ends if end in known), path.name)


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
