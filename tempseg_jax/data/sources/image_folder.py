"""A folder of images without masks, for training without labels."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import codec, image_reader
from tempseg_jax.data.sources import folder_layouts
from tempseg_jax.data.sources.base import Entry, Record, digest, stat_listing
from tempseg_jax.data.sources.folder import record
from tempseg_jax.types import IGNORE_LABEL


class ImageFolder:
    """All images of a folder and of its subfolders, as the split `train`.

    Args:
        folder: The folder.
        downscale: See `Folder`.

    Raises:
        FileNotFoundError: If the folder does not exist or has no images.
    """

    name = "unlabeled"
    splits = ("train",)

    def __init__(self, folder: str, *, downscale: int = 1):
        self.where = folder
        self._root, self._downscale = Path(folder), downscale
        if not self._root.is_dir():
            raise FileNotFoundError(
                f"data.unlabeled_dir: {folder} does not exist; set it to a folder of "
                "images without masks, or to '' for none"
            )
        self._images = folder_layouts.paths_by_stem(self._root)
        if not self._images:
            raise FileNotFoundError(
                f"data.unlabeled_dir: {folder} contains no images; set it to a folder "
                "of images without masks, or to '' for none"
            )

    def fingerprint(self) -> str:
        """Return a digest of the names, sizes and times of all files."""
        return digest(self._downscale, stat_listing(self._root))

    def split_expression(self, split: str) -> str:
        """Return `train`, the only split."""
        if split != "train":
            raise ValueError(f"{self.where} has no split {split!r}, only train")
        return split

    def notes(self) -> tuple[str, ...]:
        """Return no sentences: files that no split uses are not looked for."""
        return ()

    def entries(self, split: str) -> Sequence[Entry]:
        """Return all images, sorted by their names."""
        del split
        return [
            Entry(
                id=stem,
                nbytes=sum(path.stat().st_size for path in self._images[stem]),
                load=functools.partial(self._load, stem),
            )
            for stem in sorted(self._images)
        ]

    def classes(self) -> tuple[tuple[str, ...], UInt8[np.ndarray, "k 3"]]:
        """Return no classes."""
        return (), np.zeros((0, 3), np.uint8)

    def _load(self, stem: str) -> Record:
        path = folder_layouts.only(
            stem, self._images, folder=self._root, needed_by="data.unlabeled_dir"
        )
        data, size = codec.to_stored(image_reader.read_bytes(path), name=str(path))
        label = np.full(size, IGNORE_LABEL, np.uint8)
        return record(stem, data, label, downscale=self._downscale, name=str(path))
