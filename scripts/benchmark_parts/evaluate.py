"""Measure an evaluation: its time beside that of the network alone, and its memory.

    python scripts/benchmark.py evaluate --photos=PHOTOS --window=1024 --flip

Every round measures both modes on the same images of 2048x1024 pixels, which are made
as by `benchmark.py data --dataset=cityscapes`: `network`, the forward passes alone,
over the same windows, scales and flips; and `evaluation`, with decoding, scoring,
calibration and boundary IoU. Standard output has one JSON object for each mode with the
seconds per image, and one with the ratio of the two: the median, the minimum and the
maximum over the rounds. With --memory_images, one evaluation of so many images follows.
Its resident memory is printed on standard error after each tenth of them, and at the
end as one JSON object.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_parts import photos
from benchmark_parts.rates import resident_mib
from jaxtyping import Array, Float, UInt8

from tempseg_jax import mesh
from tempseg_jax.cli import command
from tempseg_jax.data.buckets import canvas
from tempseg_jax.data.catalog import Split, load_split
from tempseg_jax.data.sources.base import Record
from tempseg_jax.evaluation.boundary_iou import BoundaryIoU
from tempseg_jax.evaluation.evaluator import PredictedImage
from tempseg_jax.evaluation.result import PANELS, score
from tempseg_jax.inference import sliding_window, tta
from tempseg_jax.inference.settings import InferenceSettings, parse_scales
from tempseg_jax.models import SEGMENTERS
from tempseg_jax.models.preprocessing import TORCHVISION

_FORWARD = jax.jit(tta.mean_logits, static_argnames=("segmenter", "scales", "flip"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument(
        "--model",
        default="resnet50",
        choices=SEGMENTERS,
        help="the network, with random weights (default: %(default)s)",
    )
    parser.add_argument(
        "--width",
        type=float,
        default=1.0,
        help="factor on its numbers of channels (default: %(default)s)",
    )
    command.add_inference_arguments(parser)
    parser.add_argument(
        "--batch_size",
        type=int,
        default=1,
        help="images that are decoded and run together (default: %(default)s)",
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=os.cpu_count(),
        help="threads that decode, and that draw outlines (default: one per CPU)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="measurements of each mode (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=4,
        help="images of one measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        help="folder of photographs from which images are made (default: generated "
        "scenes)",
    )
    parser.add_argument(
        "--memory_images",
        type=int,
        help="also watch the memory of an evaluation of so many images",
    )


def run(args: argparse.Namespace) -> int:
    """Print one JSON object per mode."""
    with command.one_line_errors(debug=False):
        for name in ("batch_size", "rounds", "images"):
            if getattr(args, name) < 1:
                raise ValueError(f"--{name}={getattr(args, name)}: give 1 or more")
        if args.memory_images is not None and args.memory_images < 10:
            raise ValueError(
                f"--memory_images={args.memory_images}: give 10 or more, because the "
                "memory is read after each tenth of them"
            )
        batch = mesh.round_up(args.batch_size, mesh.local_mesh())
        if args.window is None and args.images % batch:
            raise ValueError(
                f"--images={args.images}: give a multiple of {batch}, the images of a "
                "batch over all devices, so that both modes run full batches"
            )
        settings = InferenceSettings(
            window=args.window,
            stride=args.stride,
            scales=parse_scales(args.scales.split(",")),
            flip=args.flip,
        )
        with tempfile.TemporaryDirectory(prefix="tempseg_jax_") as folder:
            evaluation = Evaluation(args, settings, made_split(args, Path(folder)))
            measure(evaluation, rounds=args.rounds)
            if args.memory_images:
                watch_memory(evaluation, args.memory_images)
    return 0


class Repeated(Sequence):
    """The examples of a split again and again, read only when they are used."""

    def __init__(self, examples: Sequence[Record], length: int):
        """Repeat the examples up to a length."""
        self._examples, self._length = examples, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        return self._examples[index % len(self._examples)]


def made_split(args: argparse.Namespace, folder: Path) -> Split:
    """Make the images, and prepare them as the train split of Cityscapes."""
    photos.write(folder / "files", photos=args.photos, count=args.images)
    return load_split(
        "cityscapes",
        split="train",
        manual_dir=str(folder / "files"),
        data_dir=str(folder / "prepared"),
        allow_missing=True,
    )


class Evaluation:
    """A network with random weights, and how it is evaluated on a split."""

    def __init__(
        self, args: argparse.Namespace, settings: InferenceSettings, split: Split
    ):
        """Initialize the network."""
        self.args, self.settings, self.split = args, settings, split
        self.segmenter = SEGMENTERS[args.model](
            num_classes=len(split.class_names),
            preprocessing=TORCHVISION,
            width=args.width,
            dtype=jnp.float32,
            remat=False,
        )
        image = jnp.zeros((1, 64, 64, 3), jnp.uint8)
        init = jax.jit(partial(self.segmenter.init, train=False))
        self.devices = mesh.local_mesh()
        self.variables = mesh.replicate(init(jax.random.key(0), image), self.devices)

    def forward_seconds(self) -> float:
        """Return the seconds per image of the network's forward passes alone."""
        shapes, images = self.inputs()
        rng = np.random.default_rng(0)
        inputs = {
            shape: mesh.split_batch(
                {"image": rng.integers(0, 256, shape, np.uint8)}, self.devices
            )["image"]
            for shape in {*shapes}
        }
        jax.block_until_ready(inputs)
        start = time.perf_counter()
        for shape in shapes:
            logits = _FORWARD(
                self.variables,
                inputs[shape],
                segmenter=self.segmenter,
                scales=self.settings.scales,
                flip=self.settings.flip,
            )
            jax.block_until_ready(logits)
        return (time.perf_counter() - start) / images

    def inputs(self) -> tuple[list[tuple[int, ...]], int]:
        """Return the shapes that the network runs on, and for how many images.

        The device has then no work left, which the time of the network would include.
        """
        size = photos.HEIGHT, photos.WIDTH
        windows = self.settings.windows(*size)
        if windows is None:
            batch = mesh.round_up(self.args.batch_size, self.devices)
            return [(batch, *canvas(size), 3)], batch
        shapes = []

        def record(image: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w k"]:
            shapes.append(jax.block_until_ready(image).shape)
            return jnp.zeros((*image.shape[:3], self.segmenter.num_classes))

        count = self.devices.size
        images = jnp.zeros((count, *canvas(size), 3), jnp.uint8)
        bands = sliding_window.bands(
            mesh.split_batch({"image": images}, self.devices)["image"],
            np.array([size] * count),
            record,
            window=windows[0],
            stride=windows[1],
            devices=self.devices,
        )
        for band in bands:
            jax.block_until_ready(band.logits)
        return shapes, count

    def seconds(self) -> float:
        """Return the seconds per image of a whole evaluation."""
        return self.run(self.args.images, lambda: None) / self.args.images

    def run(self, images: int, after_image: Callable[[], None]) -> float:
        """Evaluate so many images, as `--mode=eval` does; return the seconds."""
        split = dataclasses.replace(
            self.split, examples=Repeated(self.split.examples, images)
        )
        start = time.perf_counter()
        threads = self.args.num_workers
        with BoundaryIoU.in_threads(len(split.class_names), threads) as boundaries:

            def visit(example: PredictedImage) -> None:
                boundaries.add(example.label, example.prediction)
                after_image()

            score(
                self.variables,
                split,
                segmenter=self.segmenter,
                batch_size=self.args.batch_size,
                num_workers=threads,
                settings=self.settings,
                temperatures={"one": 1.0, "t_g": 0.5},
                num_examples=PANELS,
                visit=visit,
            )
            boundaries.sums()
        return time.perf_counter() - start


def measure(evaluation: Evaluation, *, rounds: int) -> None:
    """Measure both modes in turn, and print the results."""
    modes = {
        "network": evaluation.forward_seconds,
        "evaluation": evaluation.seconds,
    }
    seconds: dict[str, list[float]] = {name: [] for name in modes}
    for number in range(rounds + 1):
        for name, mode in modes.items():
            value = mode()
            if number:  # the first round compiles
                seconds[name].append(value)
    for name, values in seconds.items():
        _report({"mode": name, "s_per_image": _spread(values)}, evaluation)
    ratios = [
        whole / alone
        for alone, whole in zip(seconds["network"], seconds["evaluation"], strict=True)
    ]
    _report({"mode": "ratio", "evaluation_to_network": _spread(ratios)}, evaluation)


def watch_memory(evaluation: Evaluation, images: int) -> None:
    """Evaluate so many images; print the resident memory after each tenth."""
    resident, done = [], itertools.count(1)

    def after_image() -> None:
        if next(done) * 10 // images > len(resident):
            resident.append(resident_mib())
            done_of_all = f"{len(resident) * 10} % of {images} images"
            print(f"{done_of_all}: {resident[-1]} MiB", file=sys.stderr, flush=True)

    seconds = evaluation.run(images, after_image)
    result = {"mode": "memory", "images": images, "seconds": round(seconds)}
    _report(result | {"rss_mib_after_each_tenth": resident}, evaluation)


def _spread(values: list[float]) -> list[float]:
    """Return the median, the minimum and the maximum."""
    numbers = statistics.median(values), min(values), max(values)
    return [round(x, 4) for x in numbers]


def _report(result: dict[str, Any], evaluation: Evaluation) -> None:
    result |= {
        "model": evaluation.args.model,
        "width": evaluation.args.width,
        **dataclasses.asdict(evaluation.settings),
        "platform": jax.devices()[0].platform,
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(result), flush=True)
