"""Measure time, memory and throughput of a training step, without any data.

    python scripts/benchmark.py train
    python scripts/benchmark.py train --peer    # compared with PyTorch

Standard output has one JSON object per line and case; a table of all cases follows on
standard error. Every case runs in its own process, so that its peak memory is measured
separately.

--peer is a script that does the same work in another framework; without a value it is
scripts/peers/torch_step.py, which needs PyTorch (--peer_python names an interpreter
that has it). A script of your own takes the options --model --mode --device --dtype
--size --batch --classes --steps --warmup and, on CUDA, --compile. It prints one JSON
object per line with at least the fields "framework" (such as "torch 2.11"), "model",
"mode" and "ms_per_step".
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmark_parts import step_case

from tempseg_jax import precision
from tempseg_jax.cli import huge_pages

TORCH_PEER = Path(__file__).parents[1] / "peers" / "torch_step.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`; the defaults are the size of the paper's training."""
    networks, modes = ["fcn8s", "resnet50"], ["supervised", "adversarial"]
    known = list(step_case.SEGMENTERS)
    parser.add_argument(
        "--model",
        nargs="+",
        choices=known,
        default=networks,
        help="networks to measure (default: fcn8s and resnet50)",
    )
    parser.add_argument(
        "--mode",
        nargs="+",
        choices=modes,
        default=modes,
        help="without or with the discriminator (default: both)",
    )
    parser.add_argument(
        "--dtype",
        choices=precision.COMPUTE_DTYPES,
        default="bfloat16",
        help="precision of the convolutions (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=416,
        help="height and width of the images in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=16,
        help="images per step (default: %(default)s)",
    )
    parser.add_argument(
        "--classes",
        type=int,
        default=21,
        help="number of classes (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=50,
        help="number of timed steps (default: %(default)s)",
    )
    parser.add_argument(
        "--warmup",
        type=int,
        default=5,
        help="number of steps before the timed ones (default: %(default)s)",
    )
    parser.add_argument(
        "--remat",
        action="store_true",
        help="rematerialization (gradient checkpointing), as model.remat",
    )
    parser.add_argument(
        "--profile", metavar="DIR", help="write a profiler trace of a few steps"
    )
    parser.add_argument(
        "--peer",
        nargs="?",
        const=str(TORCH_PEER),
        metavar="FILE",
        help="compare with PyTorch, or with this script (see above)",
    )
    parser.add_argument(
        "--peer_python",
        default=sys.executable,
        metavar="PYTHON",
        help="interpreter that runs the peer (default: this one)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure every combination of --model and --mode, then print the table."""
    huge_pages.restart()  # as in training; the peer inherits them
    if len(args.model) == len(args.mode) == 1 and not args.peer:
        result = step_case.measure(args, args.model[0], args.mode[0])
        print(json.dumps(result), flush=True)
        return 0
    if args.peer:
        # The peer uses one GPU, so ours uses the same one; both inherit the variable.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    results, failed = [], []
    for model in args.model:
        for mode in args.mode:
            results += _lines(_own_command(args, model, mode), failed)
    for model in args.model if args.peer and results else ():
        for command in _peer_commands(args, model, platform=results[0]["platform"]):
            peer = _lines(command, failed)
            results += [result | {"peer": True} for result in peer]
    print(table(results), file=sys.stderr)
    for message in failed:
        print(message, file=sys.stderr)
    return int(bool(failed))


def _own_command(args: argparse.Namespace, model: str, mode: str) -> list[str]:
    command = [
        sys.executable,
        sys.argv[0],
        "train",
        f"--model={model}",
        f"--mode={mode}",
    ]
    for name in ("dtype", "size", "batch", "classes", "steps", "warmup"):
        command.append(f"--{name}={getattr(args, name)}")
    if args.remat:
        command.append("--remat")
    if args.profile:
        command.append(f"--profile={args.profile}/{model}-{mode}")
    return command


def _peer_commands(
    args: argparse.Namespace, model: str, *, platform: str
) -> list[list[str]]:
    """Return the peer's commands for the platform that our measurements reported.

    This process must not ask JAX for the platform: it would then hold most of the GPU's
    memory until it ends.
    """
    device = {"gpu": "cuda"}.get(platform, platform)
    command = [args.peer_python, args.peer, f"--model={model}", f"--device={device}"]
    command += ["--mode", *args.mode]
    for name in ("dtype", "size", "batch", "classes", "steps", "warmup"):
        command.append(f"--{name}={getattr(args, name)}")
    return [command, [*command, "--compile"]] if device == "cuda" else [command]


def _lines(command: list[str], failed: list[str]) -> list[dict[str, Any]]:
    """Run a command; print its JSON lines, and return them decoded.

    A command that fails adds a message to `failed`; the others are still run.
    """
    results = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("{"):
                results.append(json.loads(line))
                print(line, end="", flush=True)
    if process.returncode:
        failed.append(
            f"{' '.join(command)}: the command failed with exit status "
            f"{process.returncode}"
        )
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table, each with the fastest peer's time over its own."""
    head = ("framework", "model", "mode", "dtype", "ms_per_step", "images_per_s")
    head += ("peak_gib", "utilization", "compile_s")
    rows = [[*head, "peer / ours"]]
    for result in results:
        peers = [
            other["ms_per_step"]
            for other in results
            if other.get("peer")
            and all(other[key] == result[key] for key in ("model", "mode"))
        ]
        ratio = f"{min(peers) / result['ms_per_step']:.2f}" if peers else ""
        compiled = " compiled" if result.get("compile") else ""
        row = [str(result.get(key, "")) for key in head]
        rows.append([row[0] + compiled, *row[1:], ratio])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
