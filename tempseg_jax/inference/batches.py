"""Collect images of different sizes into batches, and return results in their order."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import buckets
from tempseg_jax.inference import image_files, sliding_window

_THREADS = 4

Image = UInt8[np.ndarray, "h w 3"]


def in_batches(
    images: Iterable[Any],
    *,
    batch_size: int,
    whole: Callable[[UInt8[np.ndarray, "b h w 3"]], UInt8[np.ndarray, "b h w"]],
    single: Callable[[Image], UInt8[np.ndarray, "h w"]],
    is_whole: Callable[[Image], bool],
) -> Iterator[UInt8[np.ndarray, "h w"]]:
    """Yield the labels of each image, in the order of the images.

    Images of the same canvas (see `buckets.canvas`) share a batch; an incomplete batch
    is filled with empty images, so that one program is compiled for each canvas. Images
    are read in threads. At most `buckets.WAITING` batches are in memory.

    Args:
        images: Files, Pillow images or arrays: see `image_files.read`.
        batch_size: Images per batch.
        whole: Returns the labels of a batch of padded images.
        single: Returns the labels of an image that does not run whole.
        is_whole: Whether an image runs whole, and not in windows.
    """
    pending = collections.defaultdict(list)  # (index, image) by canvas
    done: dict[int, UInt8[np.ndarray, "h w"]] = {}
    next_index = 0

    def run(shape: tuple[int, int]) -> None:
        members = pending.pop(shape)
        batch = np.zeros((batch_size, *shape, 3), np.uint8)
        for i, (_, image) in enumerate(members):
            batch[i] = sliding_window.padded(image, height=shape[0], width=shape[1])
        labels = whole(batch)
        for (index, image), label in zip(members, labels, strict=False):
            done[index] = label[: image.shape[0], : image.shape[1]]

    for index, image in enumerate(_read_ahead(images, ahead=batch_size)):
        if not is_whole(image):
            done[index] = single(image)
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


def _read_ahead(images: Iterable[Any], *, ahead: int) -> Iterator[Image]:
    """Yield the images as RGB, with some more already being read in threads."""
    reading: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for image in images:
            reading.append(pool.submit(image_files.read, image))
            if len(reading) > ahead:
                yield reading.popleft().result()
        while reading:
            yield reading.popleft().result()
