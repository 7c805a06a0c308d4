"""Parts of a split: chosen examples, and nested random subsets of the training set."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tempseg_jax.data.catalog import Split
from tempseg_jax.data.sources.base import Record


class Chosen(Sequence[Record]):
    """The examples with these indices, in this order.

    `indices` always refer to the whole split, also in a subset of a subset, because
    tiles and class pixels are stored for the whole split.
    """

    def __init__(self, examples: Sequence[Record], indices: Sequence[int]):
        if isinstance(examples, Chosen):
            indices = [examples.indices[i] for i in indices]
            examples = examples.whole
        self.whole = examples
        self.indices = list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self.whole[self.indices[index]]


def whole(split: Split) -> Split:
    """Return the split that `split` is a part of, or `split` itself."""
    if not isinstance(split.examples, Chosen):
        return split
    return dataclasses.replace(split, examples=split.examples.whole)


def evenly_spaced(split: Split, count: int | None) -> Split:
    """Return evenly spaced examples of a split; all if `count` is None or more."""
    total = len(split.examples)
    if count is None or count >= total:
        return split
    examples = Chosen(split.examples, spaced_indices(total, count))
    return dataclasses.replace(split, examples=examples)


def spaced_indices(total: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices, the first and the last among them."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


def nested_subset(split: Split, *, fraction: float, seed: int) -> Split:
    """Return a random fraction of a split, in the order of the split.

    The subsets of one seed are nested: a smaller one is part of every larger one.

    Args:
        split: The whole split.
        fraction: Above 0 and at most 1; at least one example is chosen.
        seed: Seed of the choice.
    """
    if fraction == 1:
        return split
    total = len(split.examples)
    count = max(1, round(fraction * total))
    # NumPy never changes the numbers of RandomState, so a seed means the same images
    # with every version.
    order = np.random.RandomState(seed).permutation(total)
    examples = Chosen(split.examples, sorted(order[:count].tolist()))
    return dataclasses.replace(split, examples=examples)


def divide(split: Split, *, fraction: float, seed: int) -> tuple[Split, Split | None]:
    """Return a random fraction of a split as `nested_subset` does, and all others.

    Both have the order of the split. The second is None if there are no others.
    """
    part = nested_subset(split, fraction=fraction, seed=seed)
    if len(part.examples) == len(split.examples):
        return part, None
    chosen = set(part.examples.indices)
    examples = split.examples
    indices = examples.indices if isinstance(examples, Chosen) else range(len(examples))
    others = [i for i, index in enumerate(indices) if index not in chosen]
    return part, dataclasses.replace(split, examples=Chosen(examples, others))
