"""PASCAL VOC 2012 segmentation, with SBD's extra training labels."""

import dataclasses
import functools
import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import UInt8

from tempseg_jax.data import codec, labels
from tempseg_jax.data.sources.base import Entry, Record, digest
from tempseg_jax.data.sources.download import Remote, fetch
from tempseg_jax.data.sources.files import Files, FolderFiles, TarFiles
from tempseg_jax.data.sources.sbd import Sbd

TRAINVAL = Remote(
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    size=1_999_639_040,
    sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
)
BENCHMARK = Remote(
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
    "semantic_contours/benchmark.tgz",
    size=1_419_539_633,
    sha256="6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
)
OFFICIAL_COUNTS = {"train": 1464, "val": 1449, "extra": 9118}
"""`extra` is what SBD adds to train without touching val: train_aug has 10,582."""

# SHA-256 of the sorted ids, one a line.
_OFFICIAL_LISTS = {
    "train": "129f1fe991729b1862115b77738c938c149c1f167baa02b4b3186aea9f0d6a84",
    "val": "6f8edc37993764f6e212237d39546fb595246244147e8a050813c520aac0ade1",
    "train_aug": "855dff350b7f447bf43cb98ea626a32e0d0b3b7c5786e03b2712a21355b635bf",
}
_EXPRESSIONS = {
    "train": "train",
    "val": "val",
    "trainval": "train+val",
    "train_aug": "train+extra",
}
_INSIDE = "VOCdevkit/VOC2012/"
_AUG = "SegmentationClassAug"


class Voc:
    """VOC 2012 from its archives or an unpacked VOCdevkit.

    Args:
        manual_dir: the folder of VOCtrainval_11-May-2012.tar, or VOCdevkit, or the
            folder that holds it, or VOC2012 itself. train_aug also needs SBD: either
            benchmark.tgz or benchmark_RELEASE in the same folder, or
            SegmentationClassAug/ beside SegmentationClass/. None downloads both
            archives (3.4 GB).
        download_dir: where downloads are kept.
        allow_missing: go on with a part of the data, saying how much is missing.
    """

    name = "voc"

    def __init__(
        self, *, manual_dir: str | None, download_dir: Path, allow_missing: bool
    ):
        self._manual_dir = manual_dir
        self._download_dir = download_dir
        self._allow_missing = allow_missing
        self.where = manual_dir or str(download_dir)
        self.splits = ("train", "val", "extra")
        if manual_dir and not (self._found.has_aug or self._found.sbd):
            self.splits = ("train", "val")

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes and times, or of their checksums.

        Once prepared, downloaded archives may be deleted.
        """
        if not self._manual_dir:
            return digest(TRAINVAL.sha256, BENCHMARK.sha256)
        sbd = self._found.sbd.fingerprint() if self._found.sbd else None
        return digest(self._allow_missing, self._found.files.fingerprint(), sbd)

    def split_expression(self, split: str) -> str:
        """Return train, val, trainval or train_aug in terms of what is stored."""
        if split not in _EXPRESSIONS:
            raise ValueError(
                f"voc has no split {split!r}; it has {', '.join(_EXPRESSIONS)}"
            )
        if split == "train_aug" and "extra" not in self.splits:
            raise ValueError(
                f"{self.where}: train_aug needs SBD: put benchmark.tgz beside the"
                f" archive, or {_AUG}/ beside SegmentationClass/; or use the"
                " split train"
            )
        return _EXPRESSIONS[split]

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the split's examples in the order of its list."""
        return [
            Entry(
                id=id_,
                nbytes=self._found.files.size(f"JPEGImages/{id_}.jpg"),
                load=functools.partial(self._load, id_, split),
            )
            for id_ in self._ids[split]
        ]

    def classes(self) -> tuple[tuple[str, ...], UInt8[np.ndarray, "k 3"]]:
        """Return VOC's 21 classes and its color map."""
        return labels.VOC_CLASSES, labels.voc_palette(len(labels.VOC_CLASSES))

    @functools.cached_property
    def _found(self) -> "_Found":
        if self._manual_dir:
            return _find(Path(self._manual_dir))
        fetch(BENCHMARK, folder=self._download_dir)
        return _find(fetch(TRAINVAL, folder=self._download_dir).parent)

    @functools.cached_property
    def _ids(self) -> dict[str, list[str]]:
        ids = {split: self._read_list(split) for split in ("train", "val")}
        if self._found.has_aug:
            names = self._found.files.names()
            ids["extra"] = [Path(name).stem for name in names if f"{_AUG}/" in name]
        elif self._found.sbd:
            ids["extra"] = list(self._found.sbd.ids())
        if "extra" in ids:
            ids["extra"] = extra_ids(ids["extra"], train=ids["train"], val=ids["val"])
        check_disjoint(ids, where=self.where)
        present = {split: self._present(split, ids[split]) for split in ids}
        return self._checked(ids, present)

    def _read_list(self, split: str) -> list[str]:
        name = f"ImageSets/Segmentation/{split}.txt"
        if name not in self._found.files.names():
            raise FileNotFoundError(f"{self.where}: {name} is missing")
        return self._found.files.read(name).decode().split()

    def _present(self, split: str, ids: Sequence[str]) -> list[str]:
        names = self._found.files.names()
        present = [id_ for id_ in ids if f"JPEGImages/{id_}.jpg" in names]
        if split == "extra" and self._found.sbd:
            return present  # a missing .mat is met when it is loaded
        return [id_ for id_ in present if _mask_name(id_, split) in names]

    def _checked(
        self, ids: dict[str, list[str]], present: dict[str, list[str]]
    ) -> dict[str, list[str]]:
        """Say how many are missing; go on with the others if told to."""
        missing = {s: OFFICIAL_COUNTS[s] - len(present[s]) for s in present}
        if not any(missing.values()):
            check_official(ids, where=self.where)
            return ids
        counts = ", ".join(
            f"{count:,} of {OFFICIAL_COUNTS[split]:,} {split} images"
            for split, count in missing.items()
        )
        absent = [id_ for s in ids for id_ in ids[s] if id_ not in set(present[s])]
        named = f" (its lists name {absent[0]}, which is not there)" if absent else ""
        if not self._allow_missing:
            raise ValueError(
                f"{self.where}: {counts} are missing{named}; set"
                " data.options.allow_missing=true to go on with the others"
            )
        logging.warning("%s: %s are missing%s; going on", self.where, counts, named)
        return present

    def _load(self, id_: str, split: str) -> Record:
        image_name = f"JPEGImages/{id_}.jpg"
        image = self._found.files.read(image_name)
        size = codec.image_size(image, name=f"{self.where}: {image_name}")
        if split == "extra" and self._found.sbd:
            name = f"{self._found.sbd.where}: {id_}.mat"
            label = self._found.sbd.read(id_)
        else:
            name = f"{self.where}: {_mask_name(id_, split)}"
            label = codec.read_mask(
                self._found.files.read(_mask_name(id_, split)), name=name
            )
        codec.check_label(label, size=size, num_classes=21, name=name)
        return {"id": id_, "image": image, "label": codec.encode_label(label)}


def extra_ids(
    labelled: Collection[str], *, train: Sequence[str], val: Sequence[str]
) -> list[str]:
    """Return what augments train: everything labelled that is not in train or val."""
    return sorted(set(labelled) - set(train) - set(val))


def check_disjoint(ids: dict[str, list[str]], *, where: str) -> None:
    """Raise ValueError if an image is in val and in another split."""
    for split in ids.keys() - {"val"}:
        overlap = set(ids[split]) & set(ids["val"])
        if overlap:
            raise ValueError(
                f"{where}: {len(overlap)} images are in {split} and in val, such as"
                f" {min(overlap)}; restore the official lists"
            )


def check_official(ids: dict[str, list[str]], *, where: str) -> None:
    """Raise ValueError if complete lists are not the official ones."""
    lists = {"train": ids["train"], "val": ids["val"]}
    if "extra" in ids:
        lists["train_aug"] = ids["train"] + ids["extra"]
    for name, members in lists.items():
        text = "\n".join(sorted(members))
        if hashlib.sha256(text.encode()).hexdigest() != _OFFICIAL_LISTS[name]:
            raise ValueError(
                f"{where}: the {len(members):,} images of {name} are not the official"
                " ones; get the archives again"
            )


def _mask_name(id_: str, split: str) -> str:
    folder = _AUG if split == "extra" else "SegmentationClass"
    return f"{folder}/{id_}.png"


@dataclasses.dataclass(frozen=True)
class _Found:
    files: Files
    has_aug: bool  # SegmentationClassAug is among the files
    sbd: Sbd | None


def _find(folder: Path) -> _Found:
    if not folder.is_dir():
        raise FileNotFoundError(f"data.manual_dir={folder}: no such folder")
    for below in ("VOCdevkit/VOC2012", "VOC2012", "."):
        root = folder / below
        if (root / "JPEGImages").is_dir():
            folders = ["ImageSets/Segmentation", "JPEGImages", "SegmentationClass"]
            if (root / _AUG).is_dir():
                return _Found(FolderFiles(root, folders=(*folders, _AUG)), True, None)
            # Beside JPEGImages, VOC2012 or VOCdevkit, whichever was given.
            places = (root, root.parent, root.parent.parent)
            return _Found(
                FolderFiles(root, folders=tuple(folders)), False, _sbd(places)
            )
    for archive in (folder / TRAINVAL.name, *sorted(folder.glob("VOCtrainval*.tar"))):
        if archive.is_file():
            return _Found(TarFiles(archive, prefix=_INSIDE), False, _sbd((folder,)))
    raise FileNotFoundError(
        f"data.manual_dir={folder}: holds neither {TRAINVAL.name} nor"
        " VOCdevkit/VOC2012/JPEGImages; put one there, or leave data.manual_dir out to"
        " download it"
    )


def _sbd(places: Sequence[Path]) -> Sbd | None:
    found = (place for place in places if Sbd.is_in(place))
    return next((Sbd(place) for place in found), None)
