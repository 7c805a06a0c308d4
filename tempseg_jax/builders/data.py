"""The images of a run and its batches, from a config."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from tempseg_jax.builders.plan import unlabeled_batch_size, uses_unlabeled
from tempseg_jax.data import (
    catalog,
    class_pixels,
    pipeline,
    subset,
    tile_preparation,
)
from tempseg_jax.data.tiles import Tiles
from tempseg_jax.data.unlabeled import Unlabeled
from tempseg_jax.types import Batch


def class_names(config: ConfigDict) -> tuple[str, ...]:
    """Return the class names of the configured dataset without reading its files.

    Raises:
        ValueError: If the dataset is a folder and the config does not name its classes.
    """
    data = config.data
    if data.name == "folder" and not data.options.get("class_names"):
        raise ValueError(
            "data.options.class_names: empty; list the names of the classes, so that "
            "a dataset of your own can be described without reading its files"
        )
    return catalog.CLASS_NAMES[data.name] or tuple(data.options.class_names)


def load_split(config: ConfigDict, split: str) -> catalog.Split:
    """Return one split of the configured dataset, preparing it on first use."""
    data = config.data
    return catalog.load_split(
        data.name,
        split=split,
        manual_dir=data.manual_dir,
        data_dir=data.data_dir,
        on_error=data.on_error,
        **data.options.to_dict(),
    )


def load_training_split(config: ConfigDict) -> catalog.Split:
    """Return the labeled images to train on."""
    return divide_by_labels(config, load_training_images(config))[0]


def load_training_images(config: ConfigDict) -> catalog.Split:
    """Return the images to train on: `data.train_fraction` of the training split.

    Of some of them, only the image is used, if `data.labeled_fraction` is below 1.
    """
    return subset.nested_subset(
        load_split(config, config.data.train_split),
        fraction=config.data.train_fraction,
        seed=config.data.subset_seed,
    )


def divide_by_labels(
    config: ConfigDict, images: catalog.Split
) -> tuple[catalog.Split, catalog.Split | None]:
    """Return the labeled training images, and the unlabeled ones if L_G uses them.

    Args:
        config: The config of the run.
        images: The images of `data.train_split` to train on.

    Raises:
        ValueError: If `data.unlabeled_dir` has problem files, or no image is left
            unlabeled.
        FileNotFoundError: If it does not exist or has no images.
    """
    labeled, unlabeled = subset.divide(
        images,
        fraction=config.data.labeled_fraction,
        seed=config.data.labeled_seed,
    )
    if not uses_unlabeled(config):
        return labeled, None
    unlabeled = load_unlabeled_dir(config) or unlabeled
    if unlabeled is None:
        raise ValueError(
            f"data.labeled_fraction: {config.data.labeled_fraction} of "
            f"{len(images.examples)} images, rounded, leaves none unlabeled; set it "
            "lower, or set data.unlabeled_dir"
        )
    return labeled, unlabeled


def load_unlabeled_dir(config: ConfigDict) -> catalog.Split | None:
    """Return the images of `data.unlabeled_dir`, preparing them on first use.

    Returns:
        The images; None if the config names no such folder, or L_G does not use it.

    Raises:
        ValueError: If there are problem files.
        FileNotFoundError: If the folder does not exist or has no images.
    """
    if not config.data.unlabeled_dir or not uses_unlabeled(config):
        return None
    return catalog.load_images(
        config.data.unlabeled_dir,
        data_dir=config.data.data_dir,
        on_error=config.data.on_error,
        downscale=config.data.options.get("downscale", 1),
    )


def load_tiles(config: ConfigDict, split: catalog.Split) -> Tiles | None:
    """Return the images to train on as tiles, preparing the split on first use.

    Args:
        config: The config of the run.
        split: The result of `load_training_split`, or unlabeled images.

    Returns:
        The tiles, or None if the config uses none.
    """
    if not config.data.tiles:
        return None
    tiles = tile_preparation.prepare(subset.whole(split), on_error=config.data.on_error)
    if isinstance(split.examples, subset.Chosen):
        return tiles.choose(split.examples.indices)
    return tiles


def load_unlabeled(config: ConfigDict, split: catalog.Split | None) -> Unlabeled | None:
    """Return the unlabeled images of each batch; None if L_G uses none.

    Args:
        config: The config of the run.
        split: The second result of `divide_by_labels`.
    """
    if split is None:
        return None
    tiles = load_tiles(config, split)
    return Unlabeled(split, tiles, unlabeled_batch_size(config))


def load_class_weights(
    config: ConfigDict, split: catalog.Split
) -> Float[np.ndarray, "k"] | None:
    """Return the class weights of L_seg; None if there are none.

    They are computed from the pixels of the training images (`data.train_fraction` of
    them), which are counted once and stored with the prepared dataset.

    Args:
        config: The config of the run.
        split: The result of `load_training_split`.

    Raises:
        ValueError: If the config gives weights, but not one for each class.
    """
    name, given = config.objective.class_weights, config.objective.given_class_weights
    if name == "given":
        weights = np.array(given, np.float32)
        usable = np.all(weights >= 0) and 0 < weights.sum() < np.inf
        if weights.shape != (len(split.class_names),) or not usable:
            raise ValueError(
                f"objective.given_class_weights: {tuple(given)} are not "
                f"{len(split.class_names)} numbers of at least 0, not all of them 0; "
                f"give one for each of {', '.join(split.class_names)}"
            )
        return weights
    if name == "none":
        return None
    counts = class_pixels.count(subset.whole(split))
    return class_pixels.CLASS_WEIGHTS[name](class_pixels.of_subset(counts, split))


def training_batches(
    config: ConfigDict,
    split: catalog.Split,
    tiles: Tiles | None = None,
    unlabeled: Unlabeled | None = None,
    *,
    start_step: int,
) -> Iterator[Batch]:
    """Yield this process's share of every batch after `start_step`, endlessly."""
    data = config.data
    return pipeline.train_batches(
        split,
        tiles=tiles,
        unlabeled=unlabeled,
        seed=config.seed,
        start_step=start_step,
        batch_size=data.batch_size,
        crop_size=data.crop_size,
        min_scale=data.min_scale,
        max_scale=data.max_scale,
        cat_max_ratio=data.cat_max_ratio,
        photometric=data.photometric,
        num_workers=data.num_workers,
        cache_bytes=data.cache_bytes,
        on_error=data.on_error,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
