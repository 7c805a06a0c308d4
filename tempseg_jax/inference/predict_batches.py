"""Predict images of different sizes in batches; the results keep the images' order."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import buckets
from tempseg_jax.inference import image_files

Image = UInt8[np.ndarray, "h w 3"]


def predict_in_batches(
    images: Iterable[Any],
    *,
    batch_size: int,
    label_batch: Callable[[UInt8[np.ndarray, "b h w 3"]], UInt8[np.ndarray, "b h w"]],
    label_image: Callable[[Image], UInt8[np.ndarray, "h w"]],
    runs_whole: Callable[[Image], bool],
) -> Iterator[UInt8[np.ndarray, "h w"]]:
    """Yield the labels of each image, in the order of the images.

    Images of the same canvas (see `buckets.canvas`) share a batch; an incomplete batch
    is filled with empty images, so that one program is compiled for each canvas. Images
    are read in threads. At most `buckets.WAITING` batches are in memory.

    Args:
        images: Files, Pillow images or arrays: see `image_files.read`.
        batch_size: Images per batch.
        label_batch: Returns the labels of a batch of padded images.
        label_image: Returns the labels of an image that does not run whole.
        runs_whole: Whether an image runs whole, and not in windows.
    """
    pending = collections.defaultdict(list)  # (index, image) by canvas
    done: dict[int, UInt8[np.ndarray, "h w"]] = {}
    next_index = 0

    def run(shape: tuple[int, int]) -> None:
        members = pending.pop(shape)
        batch = np.zeros((batch_size, *shape, 3), np.uint8)
        for i, (_, image) in enumerate(members):
            batch[i] = buckets.padded(image, height=shape[0], width=shape[1])
        labels = label_batch(batch)
        for (index, image), label in zip(members, labels, strict=False):
            done[index] = label[: image.shape[0], : image.shape[1]]

    reading = image_files.read_ahead(images, ahead=batch_size)
    for index, image in enumerate(future.result() for future in reading):
        if not runs_whole(image):
            done[index] = label_image(image)
        else:
            shape = buckets.canvas(image.shape[:2])
            pending[shape].append((index, image))
            if len(pending[shape]) == batch_size:
                run(shape)
        if sum(map(len, pending.values())) + len(done) >= buckets.WAITING * batch_size:
            oldest = min(pending, key=lambda shape: pending[shape][0][0], default=None)
            if oldest is not None:
                run(oldest)
        while next_index in done:
            yield done.pop(next_index)
            next_index += 1
    for shape in list(pending):
        run(shape)
    yield from (done[i] for i in sorted(done))
