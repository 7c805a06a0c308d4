"""Lengths of a run in steps, from the config and the size of the data set."""

from typing import NamedTuple

from ml_collections import ConfigDict


class Plan(NamedTuple):
    """Lengths in steps, from the config's epochs and the dataset's size."""

    steps: int
    warmup_steps: int
    evaluate_every: int  # 0: not even at the end

    @classmethod
    def of(cls, config: ConfigDict, *, images: int) -> "Plan":
        """`config.steps` shortens the whole schedule in proportion.

        Raises:
            ValueError: a field that counts is below 1, or there are fewer images than
                one batch holds.
        """
        for field, value in _counts(config).items():
            if value < 1:
                raise ValueError(f"{field}: {value} is too few; give 1 or more")
        per_epoch = images // config.data.batch_size
        if not per_epoch:
            raise ValueError(
                f"data.batch_size: {config.data.batch_size} is more than the "
                f"{images} images of data.train_split {config.data.train_split!r}; "
                "choose a smaller batch"
            )
        total = config.steps or config.epochs * per_epoch
        warmup = round(total * config.optimizer.warmup_epochs / config.epochs)
        epochs = config.evaluate_every_epochs
        every = max(1, round(epochs * per_epoch)) if epochs > 0 else 0
        return cls(total, warmup, every)


def _counts(config: ConfigDict) -> dict[str, int]:
    """Return the fields that must be 1 or more."""
    counts = {
        "epochs": config.epochs,
        "data.batch_size": config.data.batch_size,
        "data.crop_size": config.data.crop_size,
        "log_every_steps": config.log_every_steps,
        "save_every_steps": config.save_every_steps,
        "eval_batch_size": config.eval_batch_size,
    }
    return counts if config.steps is None else counts | {"steps": config.steps}


def images_at_once(config: ConfigDict) -> int:
    """Return how many images of a batch are played together.

    Raises:
        ValueError: the batch does not divide into `accumulate` equal parts.
    """
    size, rounds = config.data.batch_size, config.accumulate
    if rounds < 1 or size % rounds:
        raise ValueError(
            f"accumulate: a batch of {size} does not divide into {rounds} parts; "
            "choose a divisor of data.batch_size"
        )
    return size // rounds
