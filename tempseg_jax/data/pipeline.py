"""The order of the stages, from undecoded records to batches."""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np
from jaxtyping import Int32

from tempseg_jax.data import buckets
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.decoder import Decoder, decode
from tempseg_jax.data.transforms import (
    PAD_COLOR,
    Example,
    PhotometricDistortion,
    RandomFlip,
    RandomScaleCrop,
)
from tempseg_jax.types import IGNORE_LABEL, Batch


class EvalBatch(Batch):
    """Whole images, padded at the bottom and the right to a common shape."""

    id: list[str]  # "" for padding
    size: Int32[np.ndarray, "b 2"]  # true height and width; 0, 0 for padding


def train_batches(
    split: Split,
    *,
    batch_size: int,
    crop_size: int,
    min_scale: float,
    max_scale: float,
    cat_max_ratio: float,
    photometric: bool,
    seed: int,
    start_step: int,
    num_workers: int,
    cache_bytes: int,
    on_error: str,
    process_index: int,
    process_count: int,
) -> Iterator[Batch]:
    """Yield this process's share of the batches of step `start_step` and on, endlessly.

    A batch is a function of the step: neither the number of workers, nor that of
    processes, nor where the run started changes it.

    Args:
        split: where the records are.
        batch_size: images a step, over all processes.
        crop_size: height and width in pixels.
        min_scale: see `RandomScaleCrop`.
        max_scale: see `RandomScaleCrop`.
        cat_max_ratio: see `RandomScaleCrop`.
        photometric: whether colors are distorted.
        seed: of order and augmentation.
        start_step: the first step.
        num_workers: threads that decode and augment; 0 is the caller's own.
        cache_bytes: memory for decoded images; those that come first stay.
        on_error: 'raise' stops the run at a broken image; 'skip' takes the next one.
        process_index: of this process.
        process_count: of all.

    Raises:
        ValueError: the batch cannot be shared, or no scale be drawn; with 'raise', also
            on the way, at a broken image.
    """
    if not 0 < min_scale <= max_scale < math.inf:
        raise ValueError(
            f"data.min_scale={min_scale}, data.max_scale={max_scale}: must be above 0,"
            " and the first at most the second"
        )
    if batch_size % process_count:
        raise ValueError(
            f"data.batch_size={batch_size} is not a multiple of the {process_count}"
            " processes"
        )
    share = batch_size // process_count
    augment = [RandomFlip()] + photometric * [PhotometricDistortion()]
    assemble = _Assemble(
        decode=Decoder(split, cache_bytes=cache_bytes, on_error=on_error),
        crop=RandomScaleCrop(min_scale, max_scale, cat_max_ratio),
        augment=augment,
        size=crop_size,
    )
    dataset = (
        grain.MapDataset.range(len(split.examples))
        .seed(seed)
        .shuffle()
        .repeat()
        # A seed each, drawn before the processes part: their numbers never coincide.
        .random_map(lambda index, rng: (index, int(rng.integers(1 << 63))))
        # The stream has no end, so nothing is dropped; without it, grain rounds the
        # length up, for batches of one beyond what an integer holds.
        .batch(batch_size, drop_remainder=True, batch_fn=list)
        .slice(slice(start_step, None))
        # A run of neighbors: laid side by side, the shares are the one batch in order.
        .map(lambda plan: plan[process_index * share : (process_index + 1) * share])
        .map(assemble)
    )
    return iter(dataset.to_iter_dataset(_read_options(num_workers)))


@dataclasses.dataclass(frozen=True)
class _Assemble:
    """Indices and seeds -> a batch, decoded and augmented straight into its memory."""

    decode: Callable[[int], Example]
    crop: RandomScaleCrop
    augment: Sequence[Callable[[Example, np.random.Generator], None]]
    size: int

    def __call__(self, plan: Sequence[tuple[int, int]]) -> Batch:
        image = np.empty((len(plan), self.size, self.size, 3), np.uint8)
        label = np.empty((len(plan), self.size, self.size), np.uint8)
        for i, (index, seed) in enumerate(plan):
            rng = np.random.Generator(np.random.Philox(key=seed))
            out: Example = {"image": image[i], "label": label[i]}
            self.crop(self.decode(index), rng, out=out)
            for stage in self.augment:
                stage(out, rng)
        return {"image": image, "label": label}


def eval_batches(
    split: Split,
    *,
    batch_size: int,
    num_workers: int,
    process_index: int,
    process_count: int,
) -> Iterator[EvalBatch]:
    """Yield this process's whole images, each exactly once, in few shapes.

    Images are padded to one of at most four shapes (see `buckets.plan`), and batches
    with void images, so that a network compiles a handful of programs.

    Args:
        split: where the records are.
        batch_size: images a batch, of this process.
        num_workers: threads that decode; 0 is the caller's own.
        process_index: this process reads examples process_index::process_count.
        process_count: of all.
    """
    dataset = (
        grain.MapDataset.range(len(split.examples))[process_index::process_count]
        .map(lambda index: split.examples[index])
        .map(lambda record: (record["id"], decode(record, split=split)))
        .to_iter_dataset(_read_options(num_workers))
    )
    shapes = buckets.plan(split.sizes)
    waiting = collections.defaultdict(list)
    for id_, example in dataset:
        shape = buckets.choose(example["label"].shape, shapes)
        waiting[shape].append((id_, example))
        if len(waiting[shape]) == batch_size:
            yield _padded(waiting.pop(shape), shape=shape, batch_size=batch_size)
    for shape, examples in waiting.items():
        yield _padded(examples, shape=shape, batch_size=batch_size)


def _read_options(num_workers: int) -> grain.ReadOptions:
    return grain.ReadOptions(
        num_threads=num_workers, prefetch_buffer_size=2 * num_workers
    )


def _padded(
    examples: list[tuple[str, Example]], *, shape: tuple[int, int], batch_size: int
) -> EvalBatch:
    image = np.empty((batch_size, *shape, 3), np.uint8)
    image[:] = PAD_COLOR
    label = np.full((batch_size, *shape), IGNORE_LABEL, np.uint8)
    size = np.zeros((batch_size, 2), np.int32)
    ids = [""] * batch_size
    for i, (id_, example) in enumerate(examples):
        height, width = size[i] = example["label"].shape
        image[i, :height, :width] = example["image"]
        label[i, :height, :width] = example["label"]
        ids[i] = id_
    return {"image": image, "label": label, "id": ids, "size": size}
