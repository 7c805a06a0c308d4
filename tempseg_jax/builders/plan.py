"""Lengths of a run in steps, and the sizes of its batches."""

from typing import NamedTuple

from ml_collections import ConfigDict


class Plan(NamedTuple):
    """Lengths of a run in steps."""

    steps: int
    warmup_steps: int
    evaluate_every: int  # 0: never, not even after the last step

    @classmethod
    def of(cls, config: ConfigDict, *, images: int) -> "Plan":
        """Convert the config's epochs to steps; `config.steps` scales the warm-up too.

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
        return cls(total, warmup, config.evaluate_every_steps or every)

    def evaluates_after(self, step: int) -> bool:
        """Return whether the state after a step is evaluated."""
        every = self.evaluate_every
        return bool(every) and step > 0 and (step == self.steps or step % every == 0)

    def evaluations_after(self, step: int) -> int:
        """Return the number of evaluations after those of a step."""
        if not self.evaluate_every or step >= self.steps:
            return 0
        regular = (self.steps - 1) // self.evaluate_every - step // self.evaluate_every
        return regular + 1  # and the last step


def micro_batch_size(config: ConfigDict) -> int:
    """Return the images per micro-batch; without accumulation, those of the batch."""
    return config.data.batch_size // config.accumulate


def uses_unlabeled(config: ConfigDict) -> bool:
    """Return whether a term of L_G is about unlabeled images."""
    return config.semi.alpha > 0 or config.semi.weight > 0


def unlabeled_batch_size(config: ConfigDict) -> int:
    """Return the number of unlabeled images per step, over all processes."""
    if not uses_unlabeled(config):
        return 0
    return config.data.unlabeled_batch_size or config.data.batch_size
