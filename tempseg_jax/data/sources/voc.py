"""PASCAL VOC 2012 segmentation, with the additional training labels of SBD."""

import functools
import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import codec, labels
from tempseg_jax.data.sources import sbd, voc_files
from tempseg_jax.data.sources.base import Entry, Record, digest
from tempseg_jax.data.sources.voc_files import AUG_FOLDER, VocFiles
from tempseg_jax.io.download import RemoteFile, fetch
from tempseg_jax.io.json_files import decode_text

TRAINVAL = RemoteFile(
    url=f"http://host.robots.ox.ac.uk/pascal/VOC/voc2012/{voc_files.ARCHIVE}",
    algorithm="sha256",
    digest="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    size=1_999_639_040,
)
BENCHMARK = RemoteFile(
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
    f"semantic_contours/{sbd.ARCHIVE}",
    algorithm="sha256",
    digest="6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
    size=1_419_539_633,
)
OFFICIAL_COUNTS = {"train": 1464, "val": 1449, "extra": 9118}
"""Images per split; `extra` has SBD's images outside VOC's train and val lists.

train_aug is train and extra together: 10,582 images.
"""

# SHA-256 of the sorted ids, one per line.
_OFFICIAL_LISTS = {
    "train": "129f1fe991729b1862115b77738c938c149c1f167baa02b4b3186aea9f0d6a84",
    "val": "6f8edc37993764f6e212237d39546fb595246244147e8a050813c520aac0ade1",
    "train_aug": "855dff350b7f447bf43cb98ea626a32e0d0b3b7c5786e03b2712a21355b635bf",
}
EXPRESSIONS = {
    "train": "train",
    "val": "val",
    "trainval": "train+val",
    "train_aug": "train+extra",
}
"""The splits, and the lists of images that each consists of."""


class Voc:
    """VOC 2012 from its archives or an unpacked VOCdevkit.

    Args:
        manual_dir: The folder of VOCtrainval_11-May-2012.tar, or VOCdevkit, or the
            folder that contains it, or VOC2012 itself. train_aug also needs SBD: either
            benchmark.tgz or benchmark_RELEASE in the same folder, or
            SegmentationClassAug/ next to SegmentationClass/. None downloads both
            archives (3.4 GB).
        download_dir: The folder for downloads.
        allow_missing: Whether to use a part of the data, with a warning that says how
            many images are missing.

    Raises:
        FileNotFoundError: If `manual_dir` is set and does not contain VOC 2012.
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
        if manual_dir and not (self._files.has_aug or self._files.sbd):
            self.splits = ("train", "val")

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes and modification times.

        Of downloaded archives it is a digest of their published digests, so that they
        may be deleted after the preparation.
        """
        if not self._manual_dir:
            return digest(TRAINVAL.digest, BENCHMARK.digest)
        sbd_fingerprint = self._files.sbd.fingerprint() if self._files.sbd else None
        return digest(
            self._allow_missing, self._files.devkit.fingerprint(), sbd_fingerprint
        )

    def split_expression(self, split: str) -> str:
        """Return the stored splits of train, val, trainval or train_aug."""
        if split not in EXPRESSIONS:
            raise ValueError(
                f"voc has no split {split!r}; choose one of {', '.join(EXPRESSIONS)}"
            )
        if split == "train_aug" and "extra" not in self.splits:
            raise ValueError(
                f"{self.where}: train_aug needs SBD; put {sbd.ARCHIVE} next to"
                f" the archive, or {AUG_FOLDER}/ next to SegmentationClass/, or use the"
                " split train"
            )
        return EXPRESSIONS[split]

    def notes(self) -> tuple[str, ...]:
        """Return a sentence on missing images, if `allow_missing` allows them."""
        return self._found[1]

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the split's examples in the order of its list."""
        return [
            Entry(
                id=id_,
                nbytes=self._files.devkit.size(f"JPEGImages/{id_}.jpg"),
                load=functools.partial(self._load, id_, split),
            )
            for id_ in self._found[0][split]
        ]

    def classes(self) -> tuple[tuple[str, ...], UInt8[np.ndarray, "k 3"]]:
        """Return the 21 classes of VOC and its color map."""
        return labels.VOC_CLASSES, labels.voc_palette(len(labels.VOC_CLASSES))

    @functools.cached_property
    def _files(self) -> VocFiles:
        if self._manual_dir:
            return voc_files.find(Path(self._manual_dir))
        for archive in (BENCHMARK, TRAINVAL):
            fetch(archive, folder=self._download_dir, folder_setting="data.data_dir")
        return voc_files.find(self._download_dir)

    @functools.cached_property
    def _found(self) -> tuple[dict[str, list[str]], tuple[str, ...]]:
        """The ids of each split, and what `notes` returns."""
        ids = {split: self._read_list(split) for split in ("train", "val")}
        if self._files.has_aug:
            masks = [Path(x) for x in self._files.devkit.names() if AUG_FOLDER in x]
            ids["extra"] = [
                mask.stem
                for mask in masks
                if mask.suffix == ".png" and not mask.name.startswith(".")
            ]
        elif self._files.sbd:
            ids["extra"] = list(self._files.sbd.ids())
        if "extra" in ids:
            ids["extra"] = extra_ids(ids["extra"], train=ids["train"], val=ids["val"])
        check_disjoint(ids, where=self.where)
        present = {split: self._present(split, ids[split]) for split in ids}
        return present, self._missing(ids, present)

    def _read_list(self, split: str) -> list[str]:
        name = f"ImageSets/Segmentation/{split}.txt"
        if name not in self._files.devkit.names():
            raise FileNotFoundError(
                f"{self.where}: {name} is missing; download {voc_files.ARCHIVE} again"
            )
        text = self._files.devkit.read(name)
        return decode_text(text, where=f"{self._files.devkit.where}: {name}").split()

    def _present(self, split: str, ids: Sequence[str]) -> list[str]:
        names = self._files.devkit.names()
        present = [id_ for id_ in ids if f"JPEGImages/{id_}.jpg" in names]
        if split == "extra" and self._files.sbd:
            return present  # a missing .mat file is an error when it is loaded
        return [id_ for id_ in present if _mask_name(id_, split) in names]

    def _missing(
        self, ids: dict[str, list[str]], present: dict[str, list[str]]
    ) -> tuple[str, ...]:
        """Return a sentence on missing images; raise ValueError if none may be missing.

        If none are missing, check that the lists are the official ones.
        """
        missing = {s: OFFICIAL_COUNTS[s] - len(present[s]) for s in present}
        if not any(missing.values()):
            check_official(ids, where=self.where)
            return ()
        counts = ", ".join(
            f"{count:,} of {OFFICIAL_COUNTS[split]:,} {split} images"
            for split, count in missing.items()
        )
        absent = [id_ for s in ids for id_ in ids[s] if id_ not in set(present[s])]
        example = f" (such as {absent[0]}, which its lists name)" if absent else ""
        message = f"{self.where}: {counts} are missing{example}"
        if not self._allow_missing:
            raise ValueError(
                f"{message}; set data.options.allow_missing=true to use the others"
            )
        return (f"{message}; the others are used",)

    def _load(self, id_: str, split: str) -> Record:
        image_name = f"JPEGImages/{id_}.jpg"
        image = self._files.devkit.read(image_name)
        image, size = codec.to_stored(image, name=f"{self.where}: {image_name}")
        if split == "extra" and self._files.sbd:
            name = f"{self._files.sbd.where}: {id_}.mat"
            label = self._files.sbd.read(id_)
        else:
            name = f"{self.where}: {_mask_name(id_, split)}"
            label = codec.read_mask(
                self._files.devkit.read(_mask_name(id_, split)), name=name
            )
        codec.check_label(label, size=size, num_classes=21, name=name)
        return {"id": id_, "image": image, "label": codec.encode_label(label)}


def extra_ids(
    labeled: Collection[str], *, train: Sequence[str], val: Sequence[str]
) -> list[str]:
    """Return the labeled images that are neither in train nor in val."""
    return sorted(set(labeled) - set(train) - set(val))


def check_disjoint(ids: dict[str, list[str]], *, where: str) -> None:
    """Check that no image of val is in another split.

    Raises:
        ValueError: If there is one.
    """
    for split in ids.keys() - {"val"}:
        overlap = set(ids[split]) & set(ids["val"])
        if overlap:
            raise ValueError(
                f"{where}: {len(overlap)} images are in both {split} and val, such as"
                f" {min(overlap)}; restore the official lists"
            )


def check_official(ids: dict[str, list[str]], *, where: str) -> None:
    """Check that complete lists of ids are the official ones.

    Raises:
        ValueError: If the SHA-256 of a list differs.
    """
    lists = {"train": ids["train"], "val": ids["val"]}
    if "extra" in ids:
        lists["train_aug"] = ids["train"] + ids["extra"]
    for name, members in lists.items():
        text = "\n".join(sorted(members))
        if hashlib.sha256(text.encode()).hexdigest() != _OFFICIAL_LISTS[name]:
            raise ValueError(
                f"{where}: the {len(members):,} images of {name} are not the official"
                " ones; download the archives again"
            )


def _mask_name(id_: str, split: str) -> str:
    folder = AUG_FOLDER if split == "extra" else "SegmentationClass"
    return f"{folder}/{id_}.png"
