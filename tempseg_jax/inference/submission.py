"""Archives for the VOC and Cityscapes test servers, checked against their rules."""

import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tempseg_jax.data import labels as tables
from tempseg_jax.inference import overlays
from tempseg_jax.inference.predict_files import Outcome, for_each
from tempseg_jax.inference.predictor import Predictor

_VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls/"
_CITYSCAPES_SIZE = (1024, 2048)  # rows, columns
_CITYSCAPES_ID = re.compile(r"[a-z-]+_\d{6}_\d{6}")


class Rules(NamedTuple):
    """What a server demands."""

    dataset: str
    ending: str  # of the archive
    images: int  # of the test set
    folder: str  # in the archive, of the PNG files
    encode: Callable[[UInt8[np.ndarray, "h w"]], Image.Image]
    decode: Callable[[Image.Image], UInt8[np.ndarray, "h w"]]  # ValueError: not allowed
    find: Callable[[Path, str], dict[str, Path]]  # ids and their images


def write(
    segment: Predictor, rules: Rules, images: dict[str, Path], *, out: Path
) -> Outcome:
    """Predictor the images and write the archive, under its name only once it is right.

    Raises:
        ValueError: the network is another dataset's, an image is broken, or a
            prediction breaks the server's rules.
        OSError: the archive cannot be written.
    """
    if segment.dataset != rules.dataset:
        raise ValueError(
            f"the checkpoint was trained on {segment.dataset!r}, whose classes the "
            f"{rules.dataset} server does not know; choose another --workdir"
        )
    if not out.name.endswith(rules.ending):
        raise ValueError(f"--out={out}: the server takes a {rules.ending} file")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.part")
    sizes: dict[str, tuple[int, ...]] = {}
    try:
        with _Writer(partial, rules) as archive:

            def add(
                image: UInt8[np.ndarray, "h w 3"],
                labels: UInt8[np.ndarray, "h w"],
                name: str,
            ) -> None:
                sizes[name] = image.shape[:2]
                archive.add(name, labels)

            ids = sorted(images)
            files = [images[id_] for id_ in ids]
            outcome = for_each(segment, files, ids, write=add)
        if outcome.broken:
            raise ValueError("; ".join(outcome.broken) + ": every image is needed")
        check(partial, rules, sizes=sizes)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return outcome


def check(path: Path, rules: Rules, *, sizes: dict[str, tuple[int, ...]]) -> None:
    """Read an archive back and see that the server would take it.

    Args:
        path: of the archive.
        rules: of the server.
        sizes: rows and columns of each image that must be there, by id.

    Raises:
        ValueError: an image is missing, there is more than the images, or one is not
            of its image's size or holds what is no class.
    """
    seen = set()
    for id_, labels in read(path, rules):
        if id_ not in sizes:
            raise ValueError(f"{path}: {id_} is not one of the images")
        if id_ in seen:
            raise ValueError(f"{path}: {id_} is there twice")
        if labels.shape != sizes[id_]:
            raise ValueError(
                f"{path}: {id_} has {labels.shape} pixels (rows, columns), its image "
                f"{sizes[id_]}"
            )
        seen.add(id_)
    missing = sorted(sizes.keys() - seen)
    if missing:
        raise ValueError(f"{path}: {len(missing)} images lack, such as {missing[0]}")


def read(path: Path, rules: Rules) -> Iterator[tuple[str, UInt8[np.ndarray, "h w"]]]:
    """Yield each id of an archive and its classes (for Cityscapes, trainIds).

    Raises:
        ValueError: a member has another name or kind than the server's rules say.
    """
    for name, data in _members(path):
        if not name.startswith(rules.folder) or not name.endswith(".png"):
            raise ValueError(f"{path}: {name} is not {rules.folder}<image>.png")
        id_ = name.removeprefix(rules.folder).removesuffix(".png")
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            try:
                yield id_, rules.decode(image)
            except ValueError as error:
                raise ValueError(f"{path}: {name}: {error}") from error


class _Writer:
    """A tar.gz or a zip that threads may add to."""

    def __init__(self, path: Path, rules: Rules):
        self._rules, self._lock = rules, threading.Lock()
        self._is_zip = rules.ending == ".zip"
        # PNG is compressed already.
        self._file = (
            zipfile.ZipFile(path, "w") if self._is_zip else tarfile.open(path, "w:gz")
        )

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, id_: str, labels: UInt8[np.ndarray, "h w"]) -> None:
        buffer = io.BytesIO()
        image = self._rules.encode(labels)
        self._rules.decode(image)  # raises at the first image, not after the last
        image.save(buffer, format="PNG")
        name = f"{self._rules.folder}{id_}.png"
        with self._lock:
            if self._is_zip:
                self._file.writestr(name, buffer.getvalue())
                return
            member = tarfile.TarInfo(name)
            member.size = buffer.tell()
            buffer.seek(0)
            self._file.addfile(member, buffer)


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name, archive.read(name)
        return
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            yield member.name, archive.extractfile(member).read()


def _voc_image(labels: UInt8[np.ndarray, "h w"]) -> Image.Image:
    return overlays.indexed(labels, tables.voc_palette(len(tables.VOC_CLASSES)))


def _voc_labels(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    if image.mode != "P":
        raise ValueError(f"of type {image.mode!r}, not indexed")
    labels = np.array(image)
    if labels.max() >= len(tables.VOC_CLASSES):
        raise ValueError(
            f"holds the index {labels.max()}; the classes are 0 to "
            f"{len(tables.VOC_CLASSES) - 1}, and nothing may be left void"
        )
    return labels


def _voc_images(devkit: Path, split: str) -> dict[str, Path]:
    """Return the ids of ImageSets/Segmentation/<split>.txt, and their images."""
    listing = devkit / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listing.is_file():
        raise FileNotFoundError(
            f"{listing}: no such file; --images must be an unpacked VOCdevkit/VOC2012 "
            f"(of VOC2012test.tar for the test set), and --split one of its lists"
        )
    images = {}
    for id_ in listing.read_text().split():
        images[id_] = devkit / "JPEGImages" / f"{id_}.jpg"
        if not images[id_].is_file():
            raise FileNotFoundError(f"{images[id_]}: no such file, but in {listing}")
    return images


def _cityscapes_image(labels: UInt8[np.ndarray, "h w"]) -> Image.Image:
    return Image.fromarray(np.array(tables.CITYSCAPES_LABEL_IDS, np.uint8)[labels])


def _cityscapes_labels(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    if image.mode != "L":
        raise ValueError(f"of type {image.mode!r}, not 8-bit gray")
    if image.size != _CITYSCAPES_SIZE[::-1]:
        raise ValueError(f"of {image.width} x {image.height} pixels, not 2048 x 1024")
    labels = tables.cityscapes_train_ids()[np.array(image)]
    if (labels == tables.IGNORE_LABEL).any():
        raise ValueError("holds an id that is not scored")
    return labels


def _cityscapes_images(folder: Path, split: str) -> dict[str, Path]:
    """Return the ids of leftImg8bit/<split>/<city>/, and their images."""
    ending = "_leftImg8bit.png"
    images = {
        path.name.removesuffix(ending): path
        for path in sorted((folder / split).glob(f"*/*{ending}"))
    }
    if not images:
        raise FileNotFoundError(
            f"{folder / split}: no <city>/*{ending} there; --images must be the "
            "unpacked leftImg8bit folder, and --split one of its folders"
        )
    for id_, path in images.items():
        if not _CITYSCAPES_ID.fullmatch(id_):
            raise ValueError(f"{path}: not named <city>_000000_000000{ending}")
    return images


RULES = {
    "voc": Rules(
        "voc", ".tar.gz", 1456, _VOC_FOLDER, _voc_image, _voc_labels, _voc_images
    ),
    "cityscapes": Rules(
        "cityscapes",
        ".zip",
        1525,
        "",
        _cityscapes_image,
        _cityscapes_labels,
        _cityscapes_images,
    ),
}
