"""Say whether a resumed run has the same state, bit for bit, as an uninterrupted one.

    python scripts/gpu_parts/resume_bitwise.py --workdir=DIR

One process trains without a stop and saves a checkpoint on half of the way. Another
process resumes from the checkpoint. Both compile for themselves, so that each would
choose its own algorithms. XLA's flags are taken from the environment variable
XLA_FLAGS; with --autotune_results the first process writes its choice of algorithms to
that file, and the second reads it. The batches depend on the step only.

With --control no run is resumed: a first process writes its choice of algorithms, and
two more, which train without a stop, read it and are compared.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


RUNS = {
    # how a process starts, and what it does with --autotune_results
    False: (("straight", "dump"), ("resumed", "load")),
    True: (("straight", "dump"), ("straight", "load"), ("straight", "load")),
}
"""The processes, without and with --control; the last two are compared."""


def compare(args: argparse.Namespace) -> int:
    """Run the processes and print the comparison; JAX is not used here."""
    runs = []
    for run, flag in RUNS[args.control]:
        if run == "straight":
            shutil.rmtree(args.workdir, ignore_errors=True)
        flags = os.environ.get("XLA_FLAGS", "")
        if args.autotune_results:
            args.autotune_results.parent.mkdir(parents=True, exist_ok=True)
            word = "to" if flag == "dump" else "from"
            option = f"xla_gpu_{flag}_autotune_results_{word}"
            flags += f" --{option}={args.autotune_results}"
        command = [sys.executable, __file__, f"--run={run}", f"--model={args.model}"]
        command += [f"--size={args.size}", f"--batch={args.batch}"]
        command += [f"--steps={args.steps}", f"--workdir={args.workdir}"]
        command.append(f"--width={args.width}")
        env = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "0"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env)
        if done.returncode:
            return done.returncode
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    first, second = (run["digests"] for run in runs[-2:])
    different = [name for name in first if first[name] != second.get(name)]
    result = {
        "compared": [run for run, _ in RUNS[args.control][-2:]],
        "model": args.model,
        "steps": args.steps,
        "flags": os.environ.get("XLA_FLAGS", ""),
        "autotune_results": bool(args.autotune_results),
        "bitwise_equal": first == second,
        "arrays": len(first),
        "different_arrays": len(different),
        "first_different": different[:3],
        "losses": [run["loss"] for run in runs[-2:]],
        "device": runs[0]["device"],
    }
    print(json.dumps(result))
    shutil.rmtree(args.workdir, ignore_errors=True)
    return 0


def train(args: argparse.Namespace) -> int:
    """Train, and print the digest of every array of the last state."""
    sys.path.insert(0, str(ROOT))
    import jax
    import numpy as np

    from configs import fcn_voc
    from tempseg_jax import builders, mesh
    from tempseg_jax.builders.plan import Plan
    from tempseg_jax.data.catalog import CLASS_NAMES, Split
    from tempseg_jax.jitted_step import TRAIN_STEP
    from tempseg_jax.workdir.checkpoint import Checkpoints

    config = fcn_voc.get_config()
    config.model.name, config.model.pretrained = args.model, ""
    config.model.width = args.width
    config.data.batch_size, config.data.crop_size = args.batch, args.size
    names, shape = CLASS_NAMES["voc"], (args.batch, args.size, args.size)
    split = Split("voc", "train", [], names, np.zeros((len(names), 3), np.uint8))
    devices = mesh.data_mesh(batch_size=args.batch)
    hyper = mesh.replicate(
        builders.hyperparameters(config, Plan(args.steps, 0, args.steps)), devices
    )
    objective = builders.build_objective(config, num_classes=len(names))
    checkpoints = Checkpoints(args.workdir)
    half = args.steps // 2
    if args.run == "resumed":
        objective, state, model = builders.restore_state(
            config, checkpoints, split, step=half, devices=devices
        )
    else:
        state = builders.initial_state(config, objective, class_names=names)
        state = mesh.replicate(state, devices)
        model = builders.describe_model(config, objective, split)
    for number in range(int(state.step), args.steps):
        rng = np.random.default_rng(number)
        batch = {
            "image": rng.integers(0, 256, (*shape, 3), np.uint8),
            "label": rng.integers(0, len(names), shape, np.uint8),
        }
        batch = mesh.split_batch(batch, devices)
        state, metrics = TRAIN_STEP(state, batch, hyper, objective=objective)
        if number + 1 == half:
            checkpoints.save(state, model)
            checkpoints.wait()  # the next step donates the state
    digests = {
        jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf)).hexdigest()
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    checkpoints.close()
    device = jax.devices()[0].device_kind
    loss = float(metrics["loss"])
    print(json.dumps({"digests": digests, "loss": loss, "device": device}))
    return 0


def main() -> int:
    """Compare processes, or be one of them (--run)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--autotune_results", type=Path, help="file of algorithms")
    parser.add_argument(
        "--control", action="store_true", help="compare two uninterrupted runs"
    )
    parser.add_argument("--run", choices=("straight", "resumed"), help="internal")
    args = parser.parse_args()
    if args.control and not args.autotune_results:
        parser.error("--control needs --autotune_results, which both runs read")
    return train(args) if args.run else compare(args)


if __name__ == "__main__":
    sys.exit(main())
