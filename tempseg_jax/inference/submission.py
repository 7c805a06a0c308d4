"""Archives for the VOC and Cityscapes test servers, validated against their rules."""

import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tempseg_jax.inference.predict_files import Outcome, for_each
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.inference.submission_rules import Rules
from tempseg_jax.io import atomic


def write(
    predictor: Predictor, rules: Rules, images: dict[str, Path], *, out: Path
) -> Outcome:
    """Predict the images and write the archive; it appears at `out` once it is valid.

    Raises:
        ValueError: If the network was trained on another dataset, `out` has another
            suffix, an image cannot be read, or a prediction violates the server's
            rules.
        OSError: If the archive cannot be written.
    """
    if predictor.dataset != rules.dataset:
        raise ValueError(
            f"the checkpoint was trained on {predictor.dataset!r}, whose classes the "
            f"{rules.dataset} server does not accept; choose another --workdir"
        )
    if not out.name.endswith(rules.suffix):
        raise ValueError(
            f"--out={out}: the {rules.dataset} server accepts only {rules.suffix} files"
        )
    sizes: dict[str, tuple[int, ...]] = {}
    with atomic.replacing(out) as partial:
        with _ArchiveWriter(partial, rules) as archive:

            def add(
                image: UInt8[np.ndarray, "h w 3"],
                labels: UInt8[np.ndarray, "h w"],
                name: str,
            ) -> None:
                sizes[name] = image.shape[:2]
                archive.add(name, labels)

            ids = sorted(images)
            files = [images[id_] for id_ in ids]
            outcome = for_each(predictor, files, ids, write=add)
        if outcome.broken:
            raise ValueError(
                f"{'; '.join(outcome.broken)}: the server needs every image; no "
                "archive was written"
            )
        check(partial, rules, sizes=sizes)
    return outcome


def check(path: Path, rules: Rules, *, sizes: dict[str, tuple[int, ...]]) -> None:
    """Read an archive back and check that the server would accept it.

    Args:
        path: Path of the archive.
        rules: Rules of the server.
        sizes: (rows, columns) of every image of the test set, by id.

    Raises:
        ValueError: If a prediction is missing, unexpected or duplicated, has another
            size than its image, or contains a value that is not a class.
    """
    checked = set()
    for id_, labels in read(path, rules):
        if id_ not in sizes:
            raise ValueError(f"{path}: {id_} is not one of the images")
        if id_ in checked:
            raise ValueError(f"{path}: {id_} occurs twice")
        if labels.shape != sizes[id_]:
            raise ValueError(
                f"{path}: the prediction of {id_} has {labels.shape} pixels (rows, "
                f"columns), but its image has {sizes[id_]}"
            )
        checked.add(id_)
    missing = sorted(sizes.keys() - checked)
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} predictions are missing, such as {missing[0]}"
        )


def read(path: Path, rules: Rules) -> Iterator[tuple[str, UInt8[np.ndarray, "h w"]]]:
    """Yield (id, labels) for each prediction of an archive; for Cityscapes, trainIds.

    Raises:
        ValueError: If a file of the archive violates the server's rules.
    """
    for name, data in _members(path):
        if not name.startswith(rules.folder) or not name.endswith(".png"):
            raise ValueError(f"{path}: {name} is not named {rules.folder}<image>.png")
        id_ = name.removeprefix(rules.folder).removesuffix(".png")
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            try:
                yield id_, rules.decode(image)
            except ValueError as error:
                raise ValueError(f"{path}: {name}: {error}") from error


class _ArchiveWriter:
    """A tar.gz or zip archive to which several threads can add predictions."""

    def __init__(self, path: Path, rules: Rules):
        self._rules, self._lock = rules, threading.Lock()
        self._is_zip = rules.suffix == ".zip"
        # Zip stores files uncompressed by default; PNG is compressed already.
        self._file = (
            zipfile.ZipFile(path, "w") if self._is_zip else tarfile.open(path, "w:gz")
        )

    def __enter__(self) -> "_ArchiveWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, id_: str, labels: UInt8[np.ndarray, "h w"]) -> None:
        buffer = io.BytesIO()
        image = self._rules.encode(labels)
        self._rules.decode(image)  # raises now, rather than after the last image
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
