"""Measure the throughput of the input pipeline in images per second.

    python scripts/benchmark.py data --manual_dir=VOCDIR \
        --peer="python scripts/peers/torch_loader.py --root=VOCDIR/VOCdevkit/VOC2012"
    python scripts/benchmark.py data --dataset=cityscapes --photos=PHOTOS

The modes are `decode_only`, in which OpenCV only decodes images and labels; `encoded`,
the whole pipeline; `cached`, the whole pipeline with all decoded images in memory; and
`crops`, the whole pipeline with images stored as tiles (`data.tiles`), for Cityscapes
in place of `cached`, and with --tiles for any dataset. Every round measures each mode
once, so that a change in the load of the machine affects all modes. Standard output has
one JSON object per line and mode, with the median, the minimum and the maximum over the
rounds, and the median of the processor time, which depends less on other processes.

Cityscapes without --manual_dir measures images that are made for it, of 2048x1024
pixels: tiled from the photographs in --photos, such as VOC's JPEGImages, or from
generated scenes. The field `images` says which.

--peer is a command that does the same work with another library, for the same files and
with the same number of workers. The last line that it prints must be a JSON object with
the field `images_per_s`. It is run once per round.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmark_parts import photos
from benchmark_parts.rates import (
    Rate,
    batches_rate,
    decode_rate,
    peer_rate,
    resident_mib,
)

from tempseg_jax.cli import command
from tempseg_jax.data import pipeline, tile_preparation
from tempseg_jax.data.catalog import Split, load_split
from tempseg_jax.data.tiles import Tiles

_EVERYTHING = 1 << 40
_MADE_IMAGES = 48


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument(
        "--dataset", default="voc", help="name of the dataset (default: %(default)s)"
    )
    parser.add_argument("--manual_dir", help="folder of the dataset's files")
    parser.add_argument(
        "--data_dir",
        help="folder of prepared datasets (default: ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--split", help="split to read (default: trainval for voc, otherwise train)"
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=16,
        help="images per batch (default: %(default)s)",
    )
    parser.add_argument(
        "--crop_size",
        type=int,
        default=416,
        help="height and width of the crops in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=os.cpu_count(),
        help="threads of the pipeline; 0 uses the main thread (default: one per CPU)",
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
        default=1600,
        help="images per measurement, and a tenth of it where whole images of "
        "Cityscapes are decoded (default: %(default)s)",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        help="folder of photographs from which images are made, if Cityscapes is "
        "measured without --manual_dir (default: generated scenes)",
    )
    parser.add_argument(
        "--made_images",
        type=int,
        default=_MADE_IMAGES,
        help="number of these images (default: %(default)s)",
    )
    parser.add_argument(
        "--tiles",
        action="store_true",
        help="also measure crops from tiles; always, for Cityscapes",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        help="instead of throughput, measure the resident memory after each of this "
        "many epochs",
    )
    parser.add_argument(
        "--cache_bytes",
        type=int,
        default=0,
        help="memory for decoded images, only with --epochs (default: %(default)s)",
    )
    parser.add_argument("--peer", help="command to compare with (see above)")


def run(args: argparse.Namespace) -> int:
    """Print one JSON object per mode."""
    with command.one_line_errors(debug=False):
        for name in ("batch_size", "crop_size", "rounds", "images", "made_images"):
            if getattr(args, name) < 1:
                raise ValueError(f"--{name}={getattr(args, name)}: give 1 or more")
        if args.num_workers < 0:
            raise ValueError(f"--num_workers={args.num_workers}: give 0 or more")
        if args.photos and (args.dataset != "cityscapes" or args.manual_dir):
            raise ValueError(
                f"--photos={args.photos} needs --dataset=cityscapes, without "
                "--manual_dir"
            )
        if args.dataset == "cityscapes" and not args.manual_dir:
            with _made_cityscapes(args) as images:
                return _measure(args, images)
        return _measure(args, args.manual_dir or args.dataset)


@contextmanager
def _made_cityscapes(args: argparse.Namespace) -> Iterator[str]:
    """Set the arguments to a temporary dataset; yield what its images are made of."""
    with tempfile.TemporaryDirectory(prefix="tempseg_jax_", dir=args.data_dir) as made:
        args.manual_dir, args.data_dir = f"{made}/cityscapes", f"{made}/prepared"
        yield photos.write(
            Path(args.manual_dir), photos=args.photos, count=args.made_images
        )


def _measure(args: argparse.Namespace, images: str) -> int:
    large = args.dataset == "cityscapes"
    may_be_partial = large or args.dataset == "voc"
    split = load_split(
        args.dataset,
        split=args.split or ("trainval" if args.dataset == "voc" else "train"),
        manual_dir=args.manual_dir,
        data_dir=args.data_dir,
        **({"allow_missing": True} if may_be_partial else {}),
    )
    tiles = None
    if large or args.tiles:
        tiles = tile_preparation.prepare(split, on_error="raise")
    if args.epochs:
        return _watch_memory(split, tiles, args)
    modes = _modes(split, tiles, args, large=large)
    rates: dict[str, list[Rate]] = {mode: [] for mode in modes}
    resident = dict.fromkeys(modes, 0)
    for _ in range(args.rounds):
        for mode, measure in modes.items():
            rates[mode].append(measure())
            resident[mode] = max(resident[mode], resident_mib())
    for mode, values in rates.items():
        _report(mode, values, args, images=images, rss_mib=resident[mode])
    return 0


def _modes(
    split: Split, tiles: Tiles | None, args: argparse.Namespace, *, large: bool
) -> dict[str, Callable[[], Rate]]:
    """Return the measurement of each mode."""
    whole = max(1, args.images // 10) if large else args.images

    def rate(batches: Iterator, images: int) -> Rate:
        return batches_rate(
            batches,
            images=images,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
        )

    modes = {
        "decode_only": lambda: decode_rate(
            split, images=whole, num_workers=args.num_workers
        ),
        "encoded": lambda: rate(_batches(split, None, args, cache_bytes=0), whole),
    }
    if not large:  # otherwise all decoded images need too much memory
        cached = _batches(split, None, args, cache_bytes=_EVERYTHING)
        # After three epochs almost surely every image is in the cache.
        for _ in range(3 * len(split.examples) // args.batch_size):
            next(cached)
        modes["cached"] = lambda: rate(cached, args.images)
    if tiles is not None:
        crops = _batches(split, tiles, args, cache_bytes=0)
        modes["crops"] = lambda: rate(crops, args.images)
    if args.peer:
        modes["peer"] = lambda: peer_rate(args.peer)
    return modes


def _watch_memory(split: Split, tiles: Tiles | None, args: argparse.Namespace) -> int:
    """Print the resident memory after each epoch, to show whether it grows."""
    batches = _batches(split, tiles, args, cache_bytes=args.cache_bytes)
    resident = []
    for _ in range(args.epochs):
        for _ in range(len(split.examples) // args.batch_size):
            next(batches)
        resident.append(resident_mib())
    print(json.dumps({"mode": "memory", "rss_mib_after_each_epoch": resident}))
    return 0


def _report(
    mode: str, rates: list[Rate], args: argparse.Namespace, *, images: str, rss_mib: int
) -> None:
    values = [rate.images_per_s for rate in rates]
    cpu = [rate.cpu_ms for rate in rates if rate.cpu_ms is not None]
    result = {
        "mode": mode,
        "images_per_s": round(statistics.median(values), 1),
        "spread": [round(min(values), 1), round(max(values), 1)],
        "cpu_ms_per_image": round(statistics.median(cpu), 2) if cpu else None,
        "num_workers": args.num_workers,
        "cores": len(os.sched_getaffinity(0)),
        "rss_mib": rss_mib,
        "images": images,
    }
    print(json.dumps(result), flush=True)


def _batches(
    split: Split, tiles: Tiles | None, args: argparse.Namespace, *, cache_bytes: int
) -> Iterator:
    return pipeline.train_batches(
        split,
        tiles=tiles,
        batch_size=args.batch_size,
        crop_size=args.crop_size,
        min_scale=0.5,
        max_scale=2.0,
        cat_max_ratio=1.0,
        photometric=False,
        seed=0,
        start_step=0,
        num_workers=args.num_workers,
        cache_bytes=cache_bytes,
        on_error="raise",
        process_index=0,
        process_count=1,
    )
