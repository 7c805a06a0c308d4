"""Compile a training step for a GPU that this machine does not have.

    python scripts/benchmark.py compile --config=configs/fcn_voc.py --card=h100
    python scripts/benchmark.py compile --model=fcn8s --dtype=float16 --card=rtx2070s

It reports the memory that the step needs, whether it fits, and what it does: bytes
moved, kernels, and the time below which the card cannot run it. No GPU, no driver and
no data are needed, but XLA's compiler for CUDA is: pip install -e ".[cuda-compile]".

Standard output has one JSON object per line, step and card; a table follows on standard
error. Not counted are the workspaces of cuDNN and cuBLAS, and what autotuning on the
card would change; so it is unknown whether a step fits that leaves less than 1.5 GiB of
the 75 % of the memory that JAX preallocates.

Fields of the config are set as in training, as by --config.data.batch_size=8.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from tempseg_jax import builders, precision
from tempseg_jax.aot import report
from tempseg_jax.aot.cards import CARDS, Card
from tempseg_jax.aot.compilation import CompiledStep, compile_step
from tempseg_jax.builders import config_fields
from tempseg_jax.cli import command, config_flag
from tempseg_jax.io import atomic
from tempseg_jax.models import SEGMENTERS

ROOT = Path(__file__).parents[2]

_FIELDS = {
    "model": "model.name",
    "mode": "objective.alpha",
    "dtype": "precision",
    "size": "data.crop_size",
    "batch": "data.batch_size",
    "classes": "data.options.class_names",
    "remat": "model.remat",
}
"""The config field of each option that describes a step without a config."""

_COLUMNS = ("card", "model", "mode", "dtype", "size", "batch", "need_gib", "fits")
_COLUMNS += ("largest_batch", "gb_moved", "kernels", "roofline_ms", "tflop")


def _positive(text: str) -> int:
    """Return a number of images, pixels, classes or devices."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`, which also takes the config's overrides."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="config of the step, instead of --model etc.",
    )
    parser.add_argument(
        "--card",
        action="append",
        choices=CARDS,
        help="GPU to compile for; repeat for several (default: h100)",
    )
    parser.add_argument(
        "--devices",
        type=_positive,
        default=1,
        help="GPUs over which a batch is sharded (default: %(default)s)",
    )
    parser.add_argument(
        "--largest_batch",
        action="store_true",
        help="compile each step with another batch size too, and report the largest "
        "batch that fits",
    )
    parser.add_argument("--hlo", type=Path, metavar="DIR", help="write the programs")
    parser.add_argument(
        "--model", nargs="+", choices=list(SEGMENTERS), help="(default: fcn8s resnet50)"
    )
    parser.add_argument(
        "--mode",
        nargs="+",
        choices=["supervised", "adversarial"],
        help="without or with the discriminator (default: both)",
    )
    parser.add_argument(
        "--dtype",
        choices=precision.COMPUTE_DTYPES,
        help="precision of the convolutions (default: bfloat16)",
    )
    parser.add_argument("--size", type=_positive, help="side in pixels (default: 416)")
    parser.add_argument("--batch", type=_positive, help="images per step (default: 16)")
    parser.add_argument(
        "--classes", type=_positive, help="number of classes (default: 21, as VOC has)"
    )
    parser.add_argument(
        "--remat",
        action="store_const",
        const=True,
        help="rematerialization (gradient checkpointing)",
    )


def run(args: argparse.Namespace) -> int:
    """Compile every step for every card; print the results, then the table."""
    # A GPU that is here shall not be used, nor its memory be preallocated.
    jax.config.update("jax_platforms", "cpu")
    results = []
    with command.one_line_errors(debug=False):
        for config, num_classes in _steps(args):
            for name in args.card or ["h100"]:
                result = _measure(args, config, num_classes, name)
                print(json.dumps(result), flush=True)
                results.append(result)
    print("\n\n".join([table(results), *map(details, results)]), file=sys.stderr)
    return 0


def _steps(args: argparse.Namespace) -> Iterator[tuple[ConfigDict, int]]:
    """Yield the configs to compile, each with its number of classes.

    Raises:
        ValueError: If a config or an option has a value that is not allowed.
    """
    if args.config:
        for name, field in _FIELDS.items():
            if getattr(args, name) is not None:
                raise ValueError(
                    f"--{name} is ignored with --config; set --config.{field}=… instead"
                )
        config = _load(args.config, args.overrides)
        config_fields.check_fields(config)
        yield config, len(builders.class_names(config))
        return
    for model in args.model or ["fcn8s", "resnet50"]:
        for mode in args.mode or ["supervised", "adversarial"]:
            config = _load(ROOT / "configs/fcn_voc.py", args.overrides)
            config.model.name = model
            if mode == "supervised":
                config.objective.alpha = 0.0
            for name in ("dtype", "size", "batch", "remat"):
                if getattr(args, name) is not None:
                    field = {_FIELDS[name]: getattr(args, name)}
                    config.update_from_flattened_dict(field)
            config_fields.check_fields(config)
            yield config, args.classes or len(builders.class_names(config))


def _load(file: str | Path, overrides: list[str]) -> ConfigDict:
    values = flags.FlagValues()
    flag = config_flags.DEFINE_config_file("config", flag_values=values)
    rest = config_flag.parse(
        ["benchmark.py", f"--config={file}", *overrides], flag, values
    )
    if rest[1:]:
        raise ValueError(f"{rest[1]!r}: unexpected argument; options start with --")
    return flag.value


def _measure(
    args: argparse.Namespace, config: ConfigDict, num_classes: int, name: str
) -> dict[str, Any]:
    card = CARDS[name]
    step = compile_step(
        config, num_classes=num_classes, card=card, num_devices=args.devices
    )
    result = {
        "card": name,
        "model": config.model.name,
        "mode": "adversarial" if config.objective.alpha else "supervised",
        "dtype": config.precision,
        "size": config.data.crop_size,
        "batch": config.data.batch_size,
        "classes": num_classes,
        "remat": config.model.remat,
        "accumulate": config.accumulate,
        "devices": args.devices,
        **report.describe_step(step, card),
    }
    if args.hlo:
        file = "-".join(str(result[x]) for x in ("card", "model", "mode", "dtype"))
        with atomic.replacing(args.hlo / f"{file}.hlo") as path:
            path.write_text(step.hlo)
    if args.largest_batch:
        result["largest_batch"] = _largest_batch(
            config, step, num_classes=num_classes, card=card, num_devices=args.devices
        )
    return result


def _largest_batch(
    config: ConfigDict,
    step: CompiledStep,
    *,
    num_classes: int,
    card: Card,
    num_devices: int,
) -> int:
    """Compile the step with another batch size too; return the largest that fits."""
    multiple, batch = num_devices * config.accumulate, config.data.batch_size
    other = config.copy_and_resolve_references()
    half = batch // 2 // multiple * multiple
    other.data.batch_size = half or 2 * batch
    second = compile_step(
        other, num_classes=num_classes, card=card, num_devices=num_devices
    )
    needs = {batch: step.need, other.data.batch_size: second.need}
    return report.largest_batch(needs, card, multiple=multiple)


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table."""
    rows = [_COLUMNS] + [
        tuple(str(result.get(name, "")) for name in _COLUMNS) for result in results
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def details(result: dict[str, Any]) -> str:
    """Return what the table has no room for: bytes by kind, dtypes, live buffers."""

    def words(counts: dict[str, Any]) -> str:
        return ", ".join(f"{name} {n}" for name, n in counts.items()) or "none"

    lines = [
        f"{result['card']} {result['model']} {result['mode']} {result['dtype']}:",
        f"  GiB: arguments {result['arguments_gib']}, temporaries "
        f"{result['temporaries_gib']}; JAX preallocates {result['available_gib']}, "
        f"which leaves {result['margin_gib']} for workspaces",
        f"  GB moved: {words(result['gb_by_kind'])}",
        f"  convolutions: {words(result['convolutions'])}; other products: "
        f"{words(result['products'])}",
    ]
    if result["all_reduced_mb"]:
        lines.append(f"  MB all-reduced: {words(result['all_reduced_mb'])}")
    lines.append("  largest live buffers (MiB):")
    for buffer in result["live_buffers"]:
        lines.append(f"  {buffer['mib']:8} {buffer['shape']} {buffer['source']}")
    return "\n".join(lines)
