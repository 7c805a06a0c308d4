"""Cityscapes with fine annotations, 19 classes, from its two zips or unpacked."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import codec, labels
from tempseg_jax.data.sources.base import Entry, Record, digest
from tempseg_jax.data.sources.files import Files, FolderFiles, ZipFiles
from tempseg_jax.types import IGNORE_LABEL

IMAGES, LABELS = "leftImg8bit", "gtFine"
OFFICIAL_COUNTS = {"train": 2975, "val": 500, "test": 1525}
_IMAGE_END, _LABEL_END = "_leftImg8bit.png", "_gtFine_labelIds.png"
_URL = "https://www.cityscapes-dataset.com (needs an account)"


class Cityscapes:
    """Cityscapes from leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip.

    Args:
        manual_dir: The folder of the two zips, or of leftImg8bit/ and gtFine/.
        allow_missing: Whether to use a part of the data, with a warning that says how
            many images are missing.

    Raises:
        ValueError: If `manual_dir` is not set, or a zip is truncated.
        FileNotFoundError: If `manual_dir` does not hold the dataset.
    """

    name = "cityscapes"

    def __init__(self, *, manual_dir: str | None, allow_missing: bool):
        if not manual_dir:
            raise ValueError(
                "data.manual_dir is not set; set it to the folder of"
                f" {IMAGES}_trainvaltest.zip and {LABELS}_trainvaltest.zip from {_URL}"
            )
        self.where = manual_dir
        self._allow_missing = allow_missing
        self._images = _open(Path(manual_dir), IMAGES)
        self._labels = _open(Path(manual_dir), LABELS)
        self._ids = {s: self._find_ids(s) for s in OFFICIAL_COUNTS}
        self.splits = tuple(split for split, ids in self._ids.items() if ids)
        if not self.splits:
            raise FileNotFoundError(
                f"{self._images.where} contains no {IMAGES}/…/*{_IMAGE_END}; download"
                f" {IMAGES}_trainvaltest.zip from {_URL}"
            )

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes and modification times."""
        files = self._images.fingerprint(), self._labels.fingerprint()
        return digest(self._allow_missing, files)

    def split_expression(self, split: str) -> str:
        """Return `split` if it is train, val or test, and the files contain it."""
        if split not in self.splits:
            raise ValueError(
                f"{self.where} has no split {split!r}; choose one of"
                f" {', '.join(self.splits)}"
            )
        return split

    def notes(self) -> tuple[str, ...]:
        """Return sentences on missing images, if `allow_missing` allows them."""
        return tuple(filter(None, map(self._missing, self.splits)))

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the split's examples sorted by id; labels of test are all void."""
        self._missing(split)  # refuses what `allow_missing` does not allow
        return [
            Entry(
                id=id_,
                nbytes=self._images.size(_image_name(id_, split)),
                load=functools.partial(self._load, id_, split),
            )
            for id_ in self._ids[split]
            if not self._allow_missing or self._is_labeled(id_, split)
        ]

    def classes(self) -> tuple[tuple[str, ...], UInt8[np.ndarray, "k 3"]]:
        """Return the 19 classes that are scored, and their official RGB colors."""
        return labels.CITYSCAPES_CLASSES, labels.cityscapes_palette()

    def _find_ids(self, split: str) -> list[str]:
        start = f"{IMAGES}/{split}/"
        return sorted(
            name.rsplit("/", 1)[-1].removesuffix(_IMAGE_END)
            for name in self._images.names()
            if name.startswith(start) and name.endswith(_IMAGE_END)
        )

    def _is_labeled(self, id_: str, split: str) -> bool:
        return split == "test" or _label_name(id_, split) in self._labels.names()

    def _missing(self, split: str) -> str:
        """Return a sentence on missing images or labels; "" if there are none.

        Raises:
            FileNotFoundError: If all labels are missing.
            ValueError: If some are missing and `allow_missing` is not set.
        """
        ids = self._ids[split]
        unlabeled = [id_ for id_ in ids if not self._is_labeled(id_, split)]
        if len(unlabeled) == len(ids):
            raise FileNotFoundError(
                f"{self._labels.where} contains no {LABELS}/{split}/…/*{_LABEL_END};"
                f" download {LABELS}_trainvaltest.zip from {_URL}"
            )
        missing = OFFICIAL_COUNTS[split] - len(ids) + len(unlabeled)
        if not missing:
            return ""
        message = (
            f"{self.where}: {missing:,} of {OFFICIAL_COUNTS[split]:,} {split} images"
        )
        if unlabeled:
            message += f" or their labels ({unlabeled[0]}, …)"
        if not self._allow_missing:
            raise ValueError(
                f"{message} are missing; set data.options.allow_missing=true to use the"
                " others"
            )
        return f"{message} are missing; the others are used"

    def _load(self, id_: str, split: str) -> Record:
        image_name = _image_name(id_, split)
        image = self._images.read(image_name)
        name = f"{self._images.where}: {image_name}"
        image, size = codec.to_stored(image, name=name)
        if split == "test":
            label = np.full(size, IGNORE_LABEL, np.uint8)
        else:
            label = self._read_label(_label_name(id_, split), size)
        return {"id": id_, "image": image, "label": codec.encode_label(label)}

    def _read_label(self, name: str, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
        full = f"{self._labels.where}: {name}"
        label_ids = codec.read_mask(self._labels.read(name), name=full)
        count = labels.CITYSCAPES_HIGHEST_LABEL_ID + 1
        codec.check_label(label_ids, size=size, num_classes=count, name=full)
        return labels.cityscapes_train_ids()[label_ids]


def _city(id_: str) -> str:
    return id_.split("_", 1)[0]


def _image_name(id_: str, split: str) -> str:
    return f"{IMAGES}/{split}/{_city(id_)}/{id_}{_IMAGE_END}"


def _label_name(id_: str, split: str) -> str:
    return f"{LABELS}/{split}/{_city(id_)}/{id_}{_LABEL_END}"


def _open(folder: Path, what: str) -> Files:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"data.manual_dir={folder} does not exist; set it to the folder of"
            f" {what}_trainvaltest.zip"
        )
    archive = folder / f"{what}_trainvaltest.zip"
    if (folder / what).is_dir():
        return FolderFiles(folder, folders=(what,))
    if archive.is_file():
        return ZipFiles(archive, prefix=f"{what}/")
    raise FileNotFoundError(
        f"data.manual_dir={folder} contains neither {archive.name} nor {what}/;"
        f" download the archive from {_URL}"
    )
