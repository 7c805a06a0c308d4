"""PASCAL VOC 2012 segmentation, with SBD's extra training labels."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import UInt8

from tempseg_jax.data import codec, labels
from tempseg_jax.data.files import Files, FolderFiles
from tempseg_jax.data.source import Entry, Record, digest
from tempseg_jax.types import IGNORE_LABEL

OFFICIAL_COUNTS = {"train": 1464, "val": 1449, "extra": 9118}
"""`extra` is what SBD adds to train without touching val: train_aug has 10,582."""

_COMBINED = {
    "train": "train",
    "val": "val",
    "trainval": "train+val",
    "train_aug": "train+extra",
}
_REMEDY = "set data.allow_missing=true to go on with what is there"


class Voc:
    """VOC 2012 from an unpacked VOCdevkit.

    Args:
        manual_dir: VOCdevkit, the folder that holds it, or VOC2012 itself; with
            SegmentationClassAug/ beside SegmentationClass/ for train_aug.
        allow_missing: go on with a part of the data, saying how much is missing.
    """

    name = "voc"

    def __init__(self, *, manual_dir: str | None, allow_missing: bool = False):
        if not manual_dir:
            raise ValueError("data.manual_dir is not set; give the folder VOCdevkit")
        self._files: Files = FolderFiles(_find_devkit(Path(manual_dir)))
        self._allow_missing = allow_missing
        self.where = self._files.where
        self._ids = self._read_lists()
        self._check_complete()
        self.splits = tuple(self._ids)

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes and times."""
        return digest(self._allow_missing, self._files.fingerprint())

    def split_expression(self, split: str) -> str:
        """Return train, val, trainval or train_aug in terms of what is stored."""
        if split not in _COMBINED:
            raise ValueError(
                f"voc has no split {split!r}; it has {', '.join(_COMBINED)}"
            )
        expression = _COMBINED[split]
        if "extra" in expression and "extra" not in self.splits:
            raise ValueError(
                f"{self.where}: train_aug needs SBD's labels: put SegmentationClassAug/"
                " beside SegmentationClass/, or use the split train"
            )
        return expression

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the split's examples in the order of its list."""
        folder = "SegmentationClassAug" if split == "extra" else "SegmentationClass"
        return [
            Entry(id=id_, load=functools.partial(self._load, id_, folder))
            for id_ in self._ids[split]
        ]

    def classes(self) -> tuple[tuple[str, ...], UInt8[np.ndarray, "k 3"]]:
        """Return VOC's 21 classes and its colour map."""
        return labels.VOC_CLASSES, labels.voc_palette(len(labels.VOC_CLASSES))

    def _read_lists(self) -> dict[str, list[str]]:
        ids = {split: self._read_list(split) for split in ("train", "val")}
        overlap = set(ids["train"]) & set(ids["val"])
        if overlap:
            raise ValueError(
                f"{self.where}: {len(overlap)} images are in train and in val, such as"
                f" {min(overlap)}; restore the official lists"
            )
        augmented = {
            Path(name).stem
            for name in self._files.names()
            if name.startswith("SegmentationClassAug/") and name.endswith(".png")
        }
        if augmented:
            ids["extra"] = sorted(augmented - set(ids["train"]) - set(ids["val"]))
        return ids

    def _read_list(self, split: str) -> list[str]:
        name = f"ImageSets/Segmentation/{split}.txt"
        if name not in self._files.names():
            raise FileNotFoundError(f"{self.where}: {name} is missing")
        return self._files.read(name).decode().split()

    def _check_complete(self) -> None:
        """Say how many are missing; drop them if told to, else refuse."""
        missing = {}
        for split, ids in self._ids.items():
            folder = "SegmentationClassAug" if split == "extra" else "SegmentationClass"
            present = [
                id_
                for id_ in ids
                if {f"JPEGImages/{id_}.jpg", f"{folder}/{id_}.png"}
                <= self._files.names()
            ]
            missing[split] = OFFICIAL_COUNTS[split] - len(present)
            if self._allow_missing:
                self._ids[split] = present
        if not any(missing.values()):
            return
        message = f"{self.where}: " + ", ".join(
            f"{count} of {OFFICIAL_COUNTS[split]} {split} images"
            for split, count in missing.items()
        )
        if not self._allow_missing:
            raise ValueError(f"{message} are missing; {_REMEDY}")
        logging.warning("%s are missing; going on with the others", message)

    def _load(self, id_: str, folder: str) -> Record:
        image_name, mask_name = f"JPEGImages/{id_}.jpg", f"{folder}/{id_}.png"
        image = self._files.read(image_name)
        size = codec.image_size(image, name=image_name)
        label = codec.read_mask(self._files.read(mask_name), name=mask_name)
        if label.shape != size:
            raise codec.BadFile(f"{mask_name}: {label.shape}, but its image is {size}")
        check_values(label, name=mask_name)
        return {"id": id_, "image": image, "label": codec.encode_label(label)}


def check_values(label: UInt8[np.ndarray, "h w"], *, name: str) -> None:
    """Raise BadFile if a value is neither one of VOC's 21 classes nor void."""
    classes = len(labels.VOC_CLASSES)
    bad = np.unique(label[(label >= classes) & (label != IGNORE_LABEL)])
    if bad.size:
        raise codec.BadFile(
            f"{name}: value {bad[0]} is no class (0 to {classes - 1}, void 255)"
        )


def _find_devkit(manual_dir: Path) -> Path:
    if not manual_dir.is_dir():
        raise FileNotFoundError(f"data.manual_dir={manual_dir}: no such folder")
    for below in ("VOCdevkit/VOC2012", "VOC2012", "."):
        if (manual_dir / below / "JPEGImages").is_dir():
            return manual_dir / below
    raise FileNotFoundError(
        f"data.manual_dir={manual_dir}: no VOCdevkit/VOC2012/JPEGImages below it"
    )
