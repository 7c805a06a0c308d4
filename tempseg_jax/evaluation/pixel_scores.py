"""Counts and calibration sums of predicted images, from the pixels' logits."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from tempseg_jax.evaluation import calibration
from tempseg_jax.evaluation.calibration import Tally
from tempseg_jax.evaluation.metrics import confusion_matrix
from tempseg_jax.types import IGNORE_LABEL

_BLOCK = 2**15  # pixels whose logits stay in a CPU's cache


class Scores(NamedTuple):
    """Scores of some images, on the device or on the host."""

    confusion: Int[Array, "b k k"] | Int[np.ndarray, "b k k"]
    tally: Tally  # one row for each image
    prediction: UInt8[Array, "b h w"] | UInt8[np.ndarray, "b h w"]


def score_pixels(
    logits: Float[Array, "b h w k"],
    labels: UInt8[Array, "b h w"],
    *,
    temperatures: Float[Array, "t"],
) -> Scores:
    """Score the pixels whose label is not the ignore label.

    A constant added to all logits of a pixel changes nothing. On a CPU a block of rows
    is scored at a time, so that the intermediate results stay in the cache.
    """
    at_once = partial(_score, temperatures=temperatures)
    by_blocks = partial(_score_blocks, temperatures=temperatures)
    return jax.lax.platform_dependent(logits, labels, cpu=by_blocks, default=at_once)


def _score(logits: Array, labels: Array, *, temperatures: Array) -> Scores:
    prediction = jnp.argmax(logits, axis=-1)
    count = partial(confusion_matrix, num_classes=logits.shape[-1])
    return Scores(
        confusion=jax.vmap(count)(labels, prediction),
        tally=calibration.tally(logits, labels, temperatures=temperatures),
        prediction=prediction.astype(jnp.uint8),
    )


def _score_blocks(logits: Array, labels: Array, *, temperatures: Array) -> Scores:
    b, height, width = labels.shape
    rows = min(height, max(1, _BLOCK // (b * width)))

    def add_block(i: Array, total: Scores) -> Scores:
        # The last block ends at the border; the rows that it repeats are not counted.
        top = jnp.minimum(i * rows, height - rows)
        part, truth = (
            jax.lax.dynamic_slice_in_dim(x, top, rows, axis=1) for x in (logits, labels)
        )
        repeated = (jnp.arange(rows) < i * rows - top)[None, :, None]
        truth = jnp.where(repeated, IGNORE_LABEL, truth)
        block = _score(part, truth, temperatures=temperatures)
        return Scores(
            *jax.tree.map(jnp.add, total[:2], block[:2]),
            jax.lax.dynamic_update_slice_in_dim(
                total.prediction, block.prediction, top, axis=1
            ),
        )

    shapes = jax.eval_shape(partial(_score, temperatures=temperatures), logits, labels)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.fori_loop(0, -(-height // rows), add_block, zeros)
