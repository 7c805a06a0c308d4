"""Lengths of a run in steps, from the config and the size of the dataset."""

from typing import NamedTuple

from ml_collections import ConfigDict


class Plan(NamedTuple):
    """Lengths in steps, from the config's epochs and the number of images."""

    steps: int
    warmup_steps: int
    evaluate_every: int  # 0: never, not even after the last step

    @classmethod
    def of(cls, config: ConfigDict, *, images: int) -> "Plan":
        """Convert epochs to steps; `config.steps` scales the schedule proportionally.

        Raises:
            ValueError: If the training split has fewer images than one batch.
        """
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


def images_at_once(config: ConfigDict) -> int:
    """Return the number of images in a micro-batch: the batch, without accumulation."""
    return config.data.batch_size // config.accumulate
