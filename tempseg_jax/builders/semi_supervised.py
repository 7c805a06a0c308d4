"""What the config says about images without labels: checks, and which images they are.

The terms of the losses are in `objective.semi_supervised`.
"""

from ml_collections import ConfigDict

from tempseg_jax.data import catalog, subset
from tempseg_jax.models import PIXELWISE_DISCRIMINATORS
from tempseg_jax.objective.adversaries import ADVERSARIES


def uses_unlabeled(config: ConfigDict) -> bool:
    """Return whether a term of L_G is about images without labels."""
    return config.semi.alpha > 0 or config.semi.weight > 0


def unlabeled_batch_size(config: ConfigDict) -> int:
    """Return the number of images without labels per step, over all processes."""
    if not uses_unlabeled(config):
        return 0
    return config.data.unlabeled_batch_size or config.data.batch_size


def start_step(config: ConfigDict, *, steps: int) -> int:
    """Return the number of steps before L_semi counts."""
    return round(config.semi.start * steps)


def check(config: ConfigDict) -> None:
    """Check that the fields which `semi.alpha` and `semi.weight` need are set.

    Raises:
        ValueError: If not. The message names the field, its value and the remedy.
    """
    if not uses_unlabeled(config):
        return
    own = "semi.weight" if config.semi.weight > 0 else "semi.alpha"
    if config.data.labeled_fraction == 1 and not config.data.unlabeled_dir:
        raise ValueError(
            f"data.labeled_fraction: 1.0 leaves no image without labels for {own}; set "
            "it below 1, or set data.unlabeled_dir"
        )
    if not config.objective.alpha:
        raise ValueError(
            f"objective.alpha: 0 trains no discriminator, which {own} needs; set it "
            f"above 0, or semi.alpha and semi.weight to 0"
        )
    if config.accumulate > 1:
        raise ValueError(
            f"accumulate: {config.accumulate}, but {own} needs the whole batch at "
            "once; set it to 1"
        )
    if config.semi.weight > 0:
        _check_confidence(config)


def _check_confidence(config: ConfigDict) -> None:
    network, adversary = config.model.discriminator, config.objective.adversary
    if network not in PIXELWISE_DISCRIMINATORS:
        raise ValueError(
            f"model.discriminator: {network!r} has no score for each pixel, which "
            f"semi.weight needs; choose {', '.join(PIXELWISE_DISCRIMINATORS)}, or set "
            "semi.weight to 0"
        )
    if ADVERSARIES[adversary].confidence is None:
        known = (name for name, x in ADVERSARIES.items() if x.confidence is not None)
        raise ValueError(
            f"objective.adversary: the scores of {adversary!r} are not probabilities, "
            f"which semi.weight needs; choose {', '.join(known)}, or set semi.weight "
            "to 0"
        )


def divide(
    config: ConfigDict, images: catalog.Split
) -> tuple[catalog.Split, catalog.Split | None]:
    """Return the training images with labels, and those that are used without.

    Args:
        config: The config of the run.
        images: The images of `data.train_split` to train on.

    Raises:
        ValueError: If `data.unlabeled_dir` has problem files, or no image is left
            without labels.
        FileNotFoundError: If it does not exist or has no images.
    """
    labeled, others = subset.divide(
        images,
        fraction=config.data.labeled_fraction,
        seed=config.data.labeled_seed,
    )
    if not uses_unlabeled(config):
        return labeled, None
    if config.data.unlabeled_dir:
        others = catalog.load_images(
            config.data.unlabeled_dir,
            data_dir=config.data.data_dir,
            on_error=config.data.on_error,
            downscale=config.data.options.get("downscale", 1),
        )
    if others is None:
        raise ValueError(
            f"data.labeled_fraction: {config.data.labeled_fraction} of "
            f"{len(images.examples)} images, rounded, leaves none without labels; set "
            "it lower, or set data.unlabeled_dir"
        )
    return labeled, others
