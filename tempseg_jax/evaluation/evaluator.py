"""Evaluation: run a segmenter on the images of a split and score each image once.

Training's evaluation, `--mode=eval` and the measurements of a sweep all iterate over
`evaluate_split`, which yields one `ScoredImage` for each image.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, PyTree, UInt8

from tempseg_jax import mesh
from tempseg_jax.data import pipeline
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.pipeline import EvalBatch
from tempseg_jax.evaluation import batch_scores, calibration
from tempseg_jax.evaluation.calibration import Tally
from tempseg_jax.evaluation.pixel_scores import Scores
from tempseg_jax.inference.settings import InferenceSettings


class PredictedImage(NamedTuple):
    """An image with its ground truth and its prediction, at native resolution.

    The arrays are views of their batch, which stays in memory as long as one of them.
    """

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]

    def copied(self) -> "PredictedImage":
        """Return the image with arrays of its own, to be kept."""
        arrays = (self.image, self.label, self.prediction)
        return PredictedImage(self.id, *(x.copy() for x in arrays))


class ScoredImage(NamedTuple):
    """One image of a split with its scores, as int64 and float64."""

    predicted: PredictedImage
    confusion: Int[np.ndarray, "k k"]  # pixels by [ground truth, prediction]
    tally: Tally  # calibration sums, for each temperature


class Sums(NamedTuple):
    """Scores summed over the images of a split, in int64 and float64."""

    images: int
    confusion: Int[np.ndarray, "k k"]  # pixels by [ground truth, prediction]
    tally: Tally  # calibration sums, for each temperature

    @classmethod
    def zeros(cls, *, num_classes: int, num_temperatures: int) -> "Sums":
        """Return the sums over no images."""
        confusion = np.zeros((num_classes, num_classes), np.int64)
        return cls(0, confusion, calibration.zero_tally(num_temperatures))

    def add(self, scored: ScoredImage) -> "Sums":
        """Return the sums with one more image."""
        return Sums(
            images=self.images + 1,
            confusion=self.confusion + scored.confusion,
            tally=jax.tree.map(np.add, self.tally, scored.tally),
        )


def evaluate_split(
    variables: PyTree,
    split: Split,
    *,
    segmenter: nn.Module,
    batch_size: int,
    num_workers: int,
    settings: InferenceSettings,
    temperatures: tuple[float, ...],
) -> Iterator[ScoredImage]:
    """Score this process's share of a split, data parallel over its own devices.

    Args:
        variables: Variables of the segmenter, replicated over all devices of all
            processes.
        split: The images and their labels.
        segmenter: The network.
        batch_size: Images per forward pass of images that run whole; rounded up to a
            multiple of the devices.
        num_workers: Threads that decode images; 0 decodes in the calling thread.
        settings: Sliding-window inference and test-time augmentation.
        temperatures: Temperatures at which the calibration is measured.

    Raises:
        ValueError: If the segmenter's number of classes is not the split's.
    """
    devices = mesh.local_mesh()
    whole = mesh.round_up(batch_size, devices)

    def batch_size_of(canvas: tuple[int, int]) -> int:
        # Windows are of one image per device, so that no large image has to wait.
        return whole if settings.windows(*canvas) is None else devices.size

    return evaluate_batches(
        mesh.to_local(variables, devices),
        pipeline.eval_batches(
            split,
            batch_size=whole,
            batch_size_of=batch_size_of,
            num_workers=num_workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ),
        segmenter=segmenter,
        num_classes=len(split.class_names),
        settings=settings,
        temperatures=temperatures,
        devices=devices,
    )


def evaluate_batches(
    variables: PyTree,
    batches: Iterable[EvalBatch],
    *,
    segmenter: nn.Module,
    num_classes: int,
    settings: InferenceSettings,
    temperatures: tuple[float, ...],
    devices: Mesh,
) -> Iterator[ScoredImage]:
    """Score each image of the batches, in their order.

    The images of one batch are yielded while the device computes the next batch.

    Args:
        variables: Variables of the segmenter.
        batches: Batches of `pipeline.eval_batches`; images of size 0 are skipped.
        segmenter: The network.
        num_classes: Number of classes, without the ignore label.
        settings: Sliding-window inference and test-time augmentation.
        temperatures: Temperatures at which the calibration is measured.
        devices: Mesh of the devices that a batch is split over, with one axis, `data`.

    Raises:
        ValueError: If the segmenter's number of classes is not `num_classes`.
    """
    scored = (
        batch_scores.score_batch(
            variables,
            batch,
            segmenter=segmenter,
            settings=settings,
            temperatures=np.asarray(temperatures, np.float32),
            devices=devices,
        )
        for batch in batches
    )
    for batch, scores in _one_behind(itertools.chain.from_iterable(scored)):
        predicted = scores.confusion.shape[-1]
        if predicted != num_classes:
            raise ValueError(
                f"the segmenter predicts {predicted} classes, but the dataset has "
                f"{num_classes}; evaluate it on the dataset that it was trained on"
            )
        yield from _scored_images(batch, scores)


def _one_behind(items: Iterator[tuple]) -> Iterator[tuple]:
    """Yield each item after requesting the next, which keeps the device busy."""
    pending = None
    for item in items:
        if pending is not None:
            yield pending
        pending = item
    if pending is not None:
        yield pending


def _scored_images(batch: EvalBatch, scores: Scores) -> Iterator[ScoredImage]:
    """Split a batch into images cropped to their native size; skip size 0."""
    confusion, tally = batch_scores.to_64_bits((scores.confusion, scores.tally))
    prediction = np.asarray(scores.prediction)
    for i, (h, w) in enumerate(batch["size"].tolist()):
        if h:
            crop = np.s_[i, :h, :w]
            predicted = PredictedImage(
                batch["id"][i], batch["image"][crop], batch["label"][crop],
                prediction[crop],
            )  # fmt: skip
            yield ScoredImage(predicted, confusion[i], Tally(*(x[i] for x in tally)))
