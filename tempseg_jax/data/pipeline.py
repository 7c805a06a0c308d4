"""The stages of the input pipeline in their order, from records to batches."""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np
from jaxtyping import Int32

from tempseg_jax.data import buckets
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.codec import BadFile
from tempseg_jax.data.decoder import Decoder, decode
from tempseg_jax.data.sources.base import Record
from tempseg_jax.data.tiles import Tiles
from tempseg_jax.data.transforms import (
    PAD_COLOR,
    CropSource,
    Example,
    PhotometricDistortion,
    RandomFlip,
    RandomScaleCrop,
)
from tempseg_jax.data.unlabeled import Unlabeled, WithoutLabel, as_unlabeled
from tempseg_jax.types import IGNORE_LABEL, Batch


class EvalBatch(Batch):
    """Whole images, padded at the bottom and at the right to one shape."""

    id: list[str]  # "" for an image that only fills the batch
    size: Int32[np.ndarray, "b 2"]  # unpadded height and width; 0, 0 for such an image


def train_batches(
    split: Split,
    *,
    tiles: Tiles | None,
    unlabeled: Unlabeled | None = None,
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
    """Yield this process's share of every batch from `start_step` on, without end.

    A batch depends on the seed and the step only: not on the number of workers or
    processes, on the step at which the run started or resumed, or on tiles and cache.

    Args:
        split: The split to read.
        tiles: The split as tiles, of which only those of each crop are read; None
            decodes whole images.
        unlabeled: Unlabeled images in each batch. The labeled ones are the same
            without them.
        batch_size: Labeled images per step, over all processes.
        crop_size: Height and width of the crops in pixels.
        min_scale: See `RandomScaleCrop`.
        max_scale: See `RandomScaleCrop`.
        cat_max_ratio: See `RandomScaleCrop`.
        photometric: Whether to apply `PhotometricDistortion`.
        seed: Seed of the order of the images and of the augmentation.
        start_step: The first step.
        num_workers: Threads that decode and augment; 0 uses the calling thread.
        cache_bytes: Memory for decoded images; cached images are never replaced.
        on_error: At an image that cannot be decoded, 'raise' stops the run, and 'skip'
            uses the next image instead.
        process_index: Index of this process.
        process_count: Number of processes.

    Raises:
        ValueError: If a batch size is not a multiple of the number of processes, or
            the scales are not 0 < min_scale <= max_scale, or tiles are not those of
            their split. With 'raise', also during iteration, if an image cannot be
            decoded.
    """
    if not 0 < min_scale <= max_scale < math.inf:
        raise ValueError(
            f"data.min_scale={min_scale}, data.max_scale={max_scale}: must be finite,"
            " above 0, and min_scale not above max_scale"
        )
    _check_divides("batch_size", batch_size, process_count)
    if unlabeled is not None:
        _check_divides("unlabeled_batch_size", unlabeled.batch_size, process_count)
    num_labeled = len(split.examples)
    num_unlabeled = 0 if unlabeled is None else len(unlabeled.split.examples)

    def decoder(split: Split, tiles: Tiles | None) -> Decoder:
        """Decode a split, with its share of the cache."""
        count = len(split.examples)
        if tiles is not None and len(tiles) != count:
            raise ValueError(
                f"{tiles.folder} has tiles of {len(tiles)} images, but {split.name} has"
                f" {count}; delete this folder"
            )
        cache = cache_bytes * count // (num_labeled + num_unlabeled)
        return Decoder(split, tiles=tiles, cache_bytes=cache, on_error=on_error)

    augment: list[Callable[[Example, np.random.Generator], None]] = [RandomFlip()]
    if photometric:
        augment.append(PhotometricDistortion())
    share = {
        "start_step": start_step,
        "process_index": process_index,
        "process_count": process_count,
    }
    dataset = _batches(
        _Assemble(
            decode=decoder(split, tiles),
            crop=RandomScaleCrop(min_scale, max_scale, cat_max_ratio),
            augment=augment,
            size=crop_size,
        ),
        num_labeled,
        seed=seed,
        batch_size=batch_size,
        **share,
    )
    if unlabeled is not None:
        # With the same seed, the i-th images of both would be augmented alike.
        unlabeled_seed = int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])
        unlabeled_batches = _batches(
            _Assemble(
                decode=WithoutLabel(decoder(unlabeled.split, unlabeled.tiles)),
                crop=RandomScaleCrop(min_scale, max_scale, cat_max_ratio=1.0),
                augment=augment,
                size=crop_size,
            ),
            num_unlabeled,
            seed=unlabeled_seed,
            batch_size=unlabeled.batch_size,
            **share,
        ).map(as_unlabeled)
        dataset = dataset.map_with_index(
            lambda step, batch: batch | unlabeled_batches[step]
        )
    return iter(dataset.to_iter_dataset(_read_options(num_workers)))


def _check_divides(field: str, size: int, process_count: int) -> None:
    if size % process_count:
        raise ValueError(
            f"data.{field}={size} must be a multiple of the number of"
            f" processes, {process_count}"
        )


def _batches(
    assemble: Callable[[Sequence[tuple[int, int]]], Batch],
    images: int,
    *,
    seed: int,
    batch_size: int,
    start_step: int,
    process_index: int,
    process_count: int,
) -> grain.MapDataset:
    """Return this process's share of the batches from `start_step` on, by index."""
    share = batch_size // process_count
    return (
        grain.MapDataset.range(images)
        .seed(seed)
        .shuffle()
        .repeat()
        # The seeds of all images are drawn before the batch is divided among
        # processes, so that no two processes draw the same random numbers.
        .random_map(lambda index, rng: (index, int(rng.integers(1 << 63))))
        # The stream is endless, so nothing is dropped; without drop_remainder, grain
        # rounds its length up, which overflows if the batch size is 1.
        .batch(batch_size, drop_remainder=True, batch_fn=list)
        .slice(slice(start_step, None))
        # Consecutive images, so that the concatenated shares are the whole batch.
        .map(lambda plan: plan[process_index * share : (process_index + 1) * share])
        .map(assemble)
    )


@dataclasses.dataclass(frozen=True)
class _Assemble:
    """Decode and augment images directly into the memory of their batch."""

    decode: Callable[[int], CropSource]
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
    batch_size_of: Callable[[tuple[int, int]], int] | None = None,
    num_workers: int,
    process_index: int,
    process_count: int,
) -> Iterator[EvalBatch]:
    """Yield this process's share of the whole images, each image exactly once.

    Images are padded to their canvas (see `buckets.canvas`), and the last batch of each
    canvas is filled with void images, so that few programs are compiled. If
    `buckets.WAITING` batches of images wait for others of their canvas, a batch that is
    not full is yielded.

    Args:
        split: The split to read.
        batch_size: Images per batch of this process.
        batch_size_of: The same by the canvas, at most `batch_size`: images that are
            not scored as a batch need not wait for one. None: always `batch_size`.
        num_workers: Threads that decode; 0 uses the calling thread.
        process_index: This process reads examples process_index::process_count.
        process_count: Number of processes.

    Raises:
        ValueError: During iteration, if an image cannot be decoded.
    """
    dataset = (
        grain.MapDataset.range(len(split.examples))[process_index::process_count]
        .map(lambda index: split.examples[index])
        .map(lambda record: (record["id"], _decode_for_evaluation(record, split)))
        .to_iter_dataset(_read_options(num_workers))
    )
    if batch_size_of is None:

        def batch_size_of(shape: tuple[int, int]) -> int:
            return batch_size

    pending = collections.defaultdict(list)

    def batch(shape: tuple[int, int]) -> EvalBatch:
        examples, size = pending.pop(shape), batch_size_of(shape)
        return _pad_batch(examples, shape=shape, batch_size=size)

    for id_, example in dataset:
        shape = buckets.canvas(example["label"].shape)
        pending[shape].append((id_, example))
        if len(pending[shape]) == batch_size_of(shape):
            yield batch(shape)
        elif sum(map(len, pending.values())) >= buckets.WAITING * batch_size:
            yield batch(next(iter(pending)))  # whose first image has waited longest
    for shape in list(pending):
        yield batch(shape)


def _decode_for_evaluation(record: Record, split: Split) -> Example:
    """Decode a record; unlike in training, none is replaced by another one.

    Raises:
        ValueError: If it cannot be decoded, with the remedy.
    """
    try:
        return decode(record, split=split)
    except BadFile as error:
        raise ValueError(
            f"{error}; evaluation skips no image: repair the file, or remove it and"
            " its mask from the dataset, which is then prepared again"
        ) from error


def _read_options(num_workers: int) -> grain.ReadOptions:
    return grain.ReadOptions(
        num_threads=num_workers, prefetch_buffer_size=2 * num_workers
    )


def _pad_batch(
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
