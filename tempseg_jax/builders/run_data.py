"""The images that a training run reads: labeled, unlabeled, and those of val."""

from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from tempseg_jax.builders import data
from tempseg_jax.builders.plan import unlabeled_batch_size
from tempseg_jax.data import catalog
from tempseg_jax.data.subset import evenly_spaced
from tempseg_jax.data.tiles import Tiles
from tempseg_jax.data.unlabeled import Unlabeled
from tempseg_jax.workdir import train_images


class RunData(NamedTuple):
    """The images of one run, as `load_run_data` returns them."""

    train: catalog.Split  # `data.train_fraction` of the training split
    labeled: catalog.Split  # those of `train` whose labels are used
    labeled_tiles: Tiles | None
    unlabeled: Unlabeled | None
    val: catalog.Split

    def counted(self) -> str:
        """Return the numbers of images in words."""
        labeled = len(self.labeled.examples)
        if self.unlabeled is None:
            return f"{labeled} images"
        unlabeled = len(self.unlabeled.split.examples)
        return f"{labeled} labeled and {unlabeled} unlabeled images"

    def gaps(self, config: ConfigDict) -> list[str]:
        """Return sentences on images that are missing, or that the run does not use."""
        splits = [self.train, self.val]
        if self.unlabeled is not None:
            splits.append(self.unlabeled.split)
        gaps = list(dict.fromkeys(x for split in splits for x in split.gaps()))
        if config.data.unlabeled_dir and self.unlabeled is None:
            gaps.append(
                f"data.unlabeled_dir: {config.data.unlabeled_dir} is not used; to train"
                " on its images, set semi.alpha or semi.weight above 0"
            )
        return gaps

    def numbers(self) -> dict[str, int]:
        """Return numbers that change if images are added, removed or resized.

        Pixels are those of whole splits. Images that are replaced by others of the same
        size do not change them.
        """
        numbers = {
            "labeled_images": len(self.labeled.examples),
            "pixels_of_train_split": _pixels(self.train),
            "val_images": len(self.val.examples),
            "pixels_of_val_split": _pixels(self.val),
        }
        if self.unlabeled is not None:
            numbers |= {
                "unlabeled_images": len(self.unlabeled.split.examples),
                "pixels_of_unlabeled_split": _pixels(self.unlabeled.split),
            }
        return numbers

    def write_lists(self, config: ConfigDict, folder: str | Path) -> None:
        """Write which images are used, if not all or not all labels are.

        Lists that do not apply, which another config has written, are deleted.

        Raises:
            OSError: If a file cannot be written.
        """
        lists = {}
        if config.data.train_fraction < 1:
            lists[train_images.TRAIN] = self.train
        if config.data.labeled_fraction < 1:
            lists[train_images.LABELED] = self.labeled
        if self.unlabeled is not None:
            lists[train_images.UNLABELED] = self.unlabeled.split
        for name, split in lists.items():
            train_images.write(folder, name, (x["id"] for x in split.examples))
        for name in {*train_images.NAMES} - lists.keys():
            (Path(folder) / name).unlink(missing_ok=True)


def _pixels(split: catalog.Split) -> int:
    return sum(h * w * count for (h, w), count in split.sizes.items())


def _check_count(field: str, size: int, images: catalog.Split, kind: str) -> None:
    """Check that no image is in a batch twice."""
    if size > len(images.examples):
        raise ValueError(
            f"{field}: {size} is more than the {len(images.examples)} {kind} images to "
            "train on; choose a smaller batch, or change data.labeled_fraction"
        )


def load_run_data(config: ConfigDict) -> RunData:
    """Return the images of a run, preparing the dataset and its tiles on first use.

    Raises:
        FileNotFoundError: If files of a dataset are missing.
        ValueError: If files of a dataset cannot be used, L_G uses unlabeled images and
            there are none, or there are fewer of a kind than in a batch.
    """
    train = data.load_training_images(config)
    labeled, unlabeled = data.divide_by_labels(config, train)
    if len(labeled.examples) < len(train.examples):  # Plan checks the number of all
        _check_count("data.batch_size", config.data.batch_size, labeled, "labeled")
    if unlabeled is not None:
        size = unlabeled_batch_size(config)
        _check_count("data.unlabeled_batch_size", size, unlabeled, "unlabeled")
    val = data.load_split(config, config.data.val_split)
    return RunData(
        train=train,
        labeled=labeled,
        labeled_tiles=data.load_tiles(config, labeled),
        unlabeled=data.load_unlabeled(config, unlabeled),
        val=evenly_spaced(val, config.evaluate_images or None),
    )
