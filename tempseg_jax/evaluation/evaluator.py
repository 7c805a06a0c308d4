"""A whole split to numbers, each image once."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, UInt8

from tempseg_jax.evaluation import calibration
from tempseg_jax.evaluation.calibration import Tally
from tempseg_jax.evaluation.metrics import confusion_matrix
from tempseg_jax.inference import sliding_window
from tempseg_jax.inference.sliding_window import InferenceSettings
from tempseg_jax.types import IGNORE_LABEL, Batch


class Example(NamedTuple):
    """One image as it was evaluated, at its native size."""

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]


class Sums(NamedTuple):
    """What is added up over the images of a split."""

    images: int
    confusion: Int[np.ndarray, "k k"]
    tally: Tally  # for each temperature


_forward = jax.jit(
    lambda *args, **kwargs: jnp.exp(sliding_window.log_probabilities(*args, **kwargs)),
    static_argnames=("segmenter", "scales", "flip"),
)


@partial(jax.jit, static_argnames=("segmenter", "scales", "flip"))
def _score_whole(
    variables: PyTree,
    batch: Batch,
    temperatures: Float[Array, "t"],
    *,
    segmenter: nn.Module,
    scales: tuple[float, ...],
    flip: bool,
) -> tuple[Int[Array, "k k"], Tally, UInt8[Array, "b h w"]]:
    log_p = sliding_window.log_probabilities(
        variables, batch["image"], segmenter=segmenter, scales=scales, flip=flip
    )
    return _measure(log_p, batch["label"], temperatures)


@jax.jit
def _score_band(
    p: Float[Array, "h w k"],
    label: UInt8[Array, "h w"],
    temperatures: Float[Array, "t"],
) -> tuple[Int[Array, "k k"], Tally, UInt8[Array, "b h w"]]:
    log_p = jnp.log(jnp.maximum(p, jnp.finfo(jnp.float32).tiny))
    return _measure(log_p[None], label[None], temperatures)


def _measure(
    log_p: Float[Array, "b h w k"],
    label: UInt8[Array, "b h w"],
    temperatures: Float[Array, "t"],
) -> tuple[Int[Array, "k k"], Tally, UInt8[Array, "b h w"]]:
    prediction = jnp.argmax(log_p, axis=-1)
    counts = confusion_matrix(label, prediction, num_classes=log_p.shape[-1])
    tally = calibration.tally(log_p, label, temperatures=temperatures)
    return counts, tally, prediction.astype(jnp.uint8)


def evaluate(
    variables: PyTree,
    batches: Iterable[dict],
    *,
    segmenter: nn.Module,
    num_classes: int,
    settings: InferenceSettings,
    temperatures: tuple[float, ...],
    place: Callable[[Batch], Batch],
    devices: int,
    visit: Callable[[Example], None],
) -> Sums:
    """Return this process's sums, having shown each image to `visit`.

    The host adds up in 64 bits, one batch behind the device, so that memory does not
    grow with the split.

    Args:
        variables: of the segmenter.
        batches: of `pipeline.eval_batches`.
        segmenter: the network.
        num_classes: its classes, k.
        settings: sliding windows, scales and flips.
        temperatures: at which the calibration is measured.
        place: puts a batch on the devices.
        devices: that a batch is split over.
        visit: called once for each image, in the order of the batches.
    """
    bins = (len(temperatures), calibration.BINS)
    total = Sums(
        images=0,
        confusion=np.zeros((num_classes, num_classes), np.int64),
        tally=Tally(
            nll=np.zeros(bins[0]),
            slope=np.zeros(bins[0]),
            count=np.zeros(bins, np.int64),
            correct=np.zeros(bins, np.int64),
            confidence=np.zeros(bins),
        ),
    )
    grid = np.asarray(temperatures, np.float32)
    network = {"segmenter": segmenter, "scales": settings.scales, "flip": settings.flip}

    def forward(crops: UInt8[np.ndarray, "b h w 3"]) -> Float[Array, "b h w k"]:
        return _forward(variables, place({"image": crops})["image"], **network)

    def measured() -> Iterator[tuple]:
        """Yield each batch with its measurements, which are still being made."""
        for batch in batches:
            windows = settings.windows(*batch["image"].shape[1:3])
            if windows is None:
                arrays = {"image": batch["image"], "label": batch["label"]}
                yield batch, _score_whole(variables, place(arrays), grid, **network)
            else:
                yield from _in_windows(batch, forward, windows, grid, devices)

    for batch, (counts, tally, predictions) in _one_behind(measured()):
        examples = _examples(batch, np.asarray(predictions))
        total = Sums(
            images=total.images + len(examples),
            confusion=total.confusion + np.asarray(counts),
            tally=jax.tree.map(
                lambda a, b: a + np.asarray(b).sum(axis=0, dtype=a.dtype),
                total.tally,
                tally,
            ),
        )
        for example in examples:
            visit(example)
    return total


def _in_windows(
    batch: dict,
    forward: Callable[[np.ndarray], Array],
    windows: tuple[int, int],
    temperatures: Float[np.ndarray, "t"],
    devices: int,
) -> Iterator[tuple[dict, tuple]]:
    """Yield each image of a batch by itself, its bands added up."""
    window, stride = windows
    for i, (h, w) in enumerate(batch["size"].tolist()):
        if not h:
            continue
        image, label = (batch[name][i, :h, :w] for name in ("image", "label"))
        prediction = np.empty((1, h, w), np.uint8)
        parts = []
        for top, p in sliding_window.bands(
            image, forward, window=window, stride=stride, devices=devices
        ):
            rows, k = len(p), p.shape[-1]
            # One shape for all bands: what is filled up is void.
            shape = (window, sliding_window.up_to_bucket(w))
            full = np.full((*shape, k), 1 / k, np.float32)
            full[:rows, :w] = p
            void = np.full(shape, IGNORE_LABEL, np.uint8)
            void[:rows, :w] = label[top : top + rows]
            *numbers, predicted = _score_band(full, void, temperatures)
            parts.append(jax.tree.map(np.asarray, numbers))
            prediction[0, top : top + rows] = np.asarray(predicted)[0, :rows, :w]
        counts, tally = jax.tree.map(lambda *x: sum(x), *parts)
        alone = {name: batch[name][i : i + 1] for name in ("image", "label", "size")}
        yield alone | {"id": batch["id"][i : i + 1]}, (counts, tally, prediction)


def _one_behind(items: Iterator[tuple]) -> Iterator[tuple]:
    """Ask for the next item before handing on the last: the device is never idle."""
    pending = None
    for item in items:
        if pending is not None:
            yield pending
        pending = item
    if pending is not None:
        yield pending


def _examples(batch: dict, predictions: UInt8[np.ndarray, "b h w"]) -> list[Example]:
    """Cut the padding off; a batch is filled up with images of size 0."""
    examples = []
    for i, (h, w) in enumerate(batch["size"]):
        if h:
            cut = np.s_[i, :h, :w]
            image, label = batch["image"][cut], batch["label"][cut]
            examples.append(Example(batch["id"][i], image, label, predictions[cut]))
    return examples
