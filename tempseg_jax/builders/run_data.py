"""The images that a training run reads: with labels, without, and those of val."""

from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from tempseg_jax.builders import data, semi_supervised
from tempseg_jax.data import catalog
from tempseg_jax.data.subset import evenly_spaced
from tempseg_jax.data.tiles import Tiles
from tempseg_jax.data.unlabeled import Unlabeled
from tempseg_jax.workdir import train_images


class RunData(NamedTuple):
    """The images of one run, as `load_run_data` returns them."""

    images: catalog.Split  # of the training split; of some only the image may be used
    labeled: catalog.Split  # those whose labels are used
    tiles: Tiles | None  # the labeled images as tiles
    others: catalog.Split | None  # the images that are used without labels
    unlabeled: Unlabeled | None  # what each batch has of them
    val: catalog.Split

    def counted(self) -> str:
        """Return the numbers of images in words."""
        labeled = len(self.labeled.examples)
        if self.others is None:
            return f"{labeled} images"
        return f"{labeled} labeled and {len(self.others.examples)} other images"

    def write_lists(self, config: ConfigDict, folder: str | Path) -> None:
        """List in the workdir which images a run with a part of them or of labels uses.

        Raises:
            OSError: If a file cannot be written.
        """
        lists = {}
        if config.data.train_fraction < 1:
            lists[train_images.TRAIN] = self.images
        if config.data.labeled_fraction < 1:
            lists[train_images.LABELED] = self.labeled
        if self.others is not None:
            lists[train_images.UNLABELED] = self.others
        for name, split in lists.items():
            train_images.write(folder, name, (x["id"] for x in split.examples))


def load_run_data(config: ConfigDict) -> RunData:
    """Return the images of a run, preparing the dataset and its tiles on first use.

    Raises:
        FileNotFoundError: If files of a dataset are missing.
        ValueError: If files of a dataset cannot be used, or no image is left without
            labels for an objective that needs some.
    """
    images = data.load_training_images(config)
    labeled, others = semi_supervised.divide(config, images)
    val = data.load_split(config, config.data.val_split)
    return RunData(
        images=images,
        labeled=labeled,
        tiles=data.load_tiles(config, labeled),
        others=others,
        unlabeled=data.load_unlabeled(config, others),
        val=evenly_spaced(val, config.evaluate_images or None),
    )
