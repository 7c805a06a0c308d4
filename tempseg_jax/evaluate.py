"""A whole split to numbers, each image once."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree, UInt8

from tempseg_jax.metrics import confusion_matrix
from tempseg_jax.steps import predict
from tempseg_jax.types import Batch


class Example(NamedTuple):
    """One image as it was evaluated, at its native size."""

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]


@partial(jax.jit, static_argnames=("segmenter", "num_classes"))
def _score_batch(
    variables: PyTree, batch: Batch, *, segmenter: nn.Module, num_classes: int
) -> tuple[Int[Array, "k k"], UInt8[Array, "b h w"]]:
    logits = predict(variables, batch["image"], segmenter=segmenter)
    predictions = jnp.argmax(logits, axis=-1)
    counts = confusion_matrix(batch["label"], predictions, num_classes=num_classes)
    return counts, predictions.astype(jnp.uint8)


def evaluate(
    variables: PyTree,
    batches: Iterable[dict],
    *,
    segmenter: nn.Module,
    num_classes: int,
    place: Callable[[Batch], Batch],
    num_examples: int,
) -> tuple[Int[np.ndarray, "k k"], list[Example]]:
    """Return this process's confusion matrix and its first `num_examples` examples.

    The matrix is summed on the host in int64, one batch behind the device, so that
    memory does not grow with the split.
    """
    total = np.zeros((num_classes, num_classes), np.int64)
    pending, examples = None, []
    for batch in batches:
        arrays = {"image": batch["image"], "label": batch["label"]}
        counts, predictions = _score_batch(
            variables, place(arrays), segmenter=segmenter, num_classes=num_classes
        )
        if len(examples) < num_examples:
            examples += _examples(batch, np.asarray(predictions))
        if pending is not None:
            total += np.asarray(pending)
        pending = counts
    if pending is not None:
        total += np.asarray(pending)
    return total, examples[:num_examples]


def _examples(batch: dict, predictions: UInt8[np.ndarray, "b h w"]) -> list[Example]:
    """Cut the padding off; a batch is filled up with images of size 0."""
    examples = []
    for i, (h, w) in enumerate(batch["size"]):
        if h:
            cut = np.s_[i, :h, :w]
            image, label = batch["image"][cut], batch["label"][cut]
            examples.append(Example(batch["id"][i], image, label, predictions[cut]))
    return examples
