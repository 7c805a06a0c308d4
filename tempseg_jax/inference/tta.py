"""Test-time augmentation (TTA): the network's output averaged over scales and flipping.

In sliding-window inference it is applied to each window as if it were an image of its
own: the window is resized and flipped, the network runs on each version, and the
results are brought back to the window's size and averaged. Then windows are averaged
where they overlap (`sliding_window`).
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, UInt8

from tempseg_jax.models.segmenter import predict


def mean_logits(
    variables: PyTree,
    image: UInt8[Array, "b h w 3"],
    *,
    segmenter: nn.Module,
    scales: tuple[float, ...],
    flip: bool,
) -> Float[Array, "b h w k"]:
    """Return log p plus a constant of each pixel, where p is the mean of softmax(z).

    z are the logits, and the mean is over scales and flips. With one scale and no flip
    the result is z itself. Labels, and the probabilities at a temperature T,
    softmax(log p / T), do not depend on the constant. T never changes the argmax.
    """
    b, h, w = image.shape[:3]
    log_sum = None
    for scale in scales:
        scaled = image if scale == 1 else _resized(image, scale)
        for mirrored in (False, True)[: 1 + flip]:
            augmented = scaled[:, :, ::-1] if mirrored else scaled
            logits = predict(variables, augmented, segmenter=segmenter)
            logits = logits[:, :, ::-1] if mirrored else logits
            if scale != 1:
                shape = (b, h, w, logits.shape[-1])
                logits = jax.image.resize(logits, shape, method="bilinear")
            if len(scales) == 1 and not flip:
                return logits
            log_p = jax.nn.log_softmax(logits)
            log_sum = log_p if log_sum is None else jnp.logaddexp(log_sum, log_p)
    return log_sum


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def log_probabilities(
    variables: PyTree, image: UInt8[Array, "b h w 3"], **network: Any
) -> Float[Array, "b h w k"]:
    """Return log p, where p is that of `mean_logits`."""
    return jax.nn.log_softmax(mean_logits(variables, image, **network))


def _resized(image: UInt8[Array, "b h w 3"], scale: float) -> UInt8[Array, "b _ _ 3"]:
    b, h, w, c = image.shape
    shape = (b, max(1, round(h * scale)), max(1, round(w * scale)), c)
    values = jax.image.resize(image.astype(jnp.float32), shape, method="bilinear")
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)
