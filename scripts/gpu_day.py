"""Everything worth measuring on a GPU, in one command that can be stopped and resumed.

    python scripts/gpu_day.py --out=DIR --minutes=8
    python scripts/gpu_day.py --out=DIR --minutes=60 --manual_dir=CAMVID

Each part has a time box and consists of cases, each a command of its own, which takes
at most half of the box. When a case ends, DIR/PART.json is written again with the
results of all cases of the part so far, and a line with its numbers is printed. Call it
again with the same --out to continue: cases that finished with the same options are
skipped, and failed ones are tried again after all others. A case that fails is recorded
with its error, and the next one starts. DIR/logs has what each case printed. Nothing is
downloaded. With --tiny all sizes are tiny, to try the command itself, as on a CPU.

Options that start with --config. are passed on to training (the parts `loop` and
`training`), for example --config.seed=1.
"""

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path

from gpu_parts import case, cases, runner, settings

from tempseg_jax.aot.cards import CARDS
from tempseg_jax.cli import huge_pages

PARTS = (
    # name, minutes, function that returns its cases
    # `step_times` fills the compilation cache for `precisions` and `profile`.
    runner.Part("step_times", 12, cases.step_times),
    runner.Part("precisions", 6, cases.precisions),
    runner.Part("gradients", 8, cases.gradients),
    runner.Part("profile", 4, cases.profile),
    runner.Part("determinism", 10, cases.determinism),
    runner.Part("memory", 10, cases.memory),
    runner.Part("loop", 8, cases.loop),
    runner.Part("flags", 12, cases.flags),
    runner.Part("training", 600, cases.training),  # until --minutes is over
)

NO_GPU = (
    "JAX would compute on the CPU: JAX_PLATFORMS says so, or there is no device file "
    "such as /dev/nvidia0, or no plugin for a GPU is installed (pip install "
    '"jax[cuda13]"); --tiny tries the command on a CPU, and JAX_PLATFORMS=cuda says '
    "that there is a GPU"
)


def parse(argv: list[str]) -> settings.Settings:
    """Return the settings of the command line, with absolute paths."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument(
        "--minutes", type=float, default=8, help="when to stop (default: %(default)s)"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=names, default=names, help="default: all"
    )
    parser.add_argument("--manual_dir", type=Path, help="CamVid's files (docs/data.md)")
    parser.add_argument("--data_dir", type=Path, help="folder of prepared datasets")
    parser.add_argument(
        "--peer_python",
        default=sys.executable,
        help="interpreter with PyTorch (default: this one)",
    )
    parser.add_argument(
        "--card", choices=CARDS, help="the card to compile for (default: this one)"
    )
    parser.add_argument(
        "--weights",
        action="append",
        type=_weights,
        default=[],
        metavar="NETWORK=FILE",
        help="weight file from which `loop` and `training` start this network: "
        f"{' or '.join(cases.NETWORKS)}; repeat for both (default: from scratch)",
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, as on a CPU")
    args, overrides = parser.parse_known_args(argv)
    unknown = [word for word in overrides if not word.startswith("--config.")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}")
    pretrained = [x for x in overrides if x.startswith("--config.model.pretrained")]
    if pretrained:
        parser.error(
            f"{pretrained[0]}: weights fit only one network; give "
            "--weights=NETWORK=FILE"
        )
    if args.manual_dir and not args.manual_dir.is_dir():
        parser.error(f"--manual_dir={args.manual_dir}: this folder does not exist")
    python = shutil.which(args.peer_python)
    if python is None:
        parser.error(f"--peer_python={args.peer_python}: there is no such program")
    on_cpu = huge_pages.computes_on_cpu()
    if on_cpu and not args.tiny:
        parser.error(NO_GPU)
    return settings.Settings(
        out=args.out.absolute(),
        minutes=args.minutes,
        parts=tuple(args.parts),
        manual_dir=args.manual_dir and args.manual_dir.absolute(),
        data_dir=args.data_dir and args.data_dir.absolute(),
        peer_python=python,
        card=args.card or settings.card_of_this_machine(),
        device="cpu" if on_cpu else "cuda",
        tiny=args.tiny,
        weights=dict(args.weights),
        overrides=tuple(overrides),
    )


def _weights(text: str) -> tuple[str, Path]:
    network, _, file = text.partition("=")
    if network not in cases.NETWORKS:
        raise argparse.ArgumentTypeError(
            f"{text}: give NETWORK=FILE with a NETWORK of {', '.join(cases.NETWORKS)}"
        )
    if not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"{text}: the file {file!r} does not exist")
    return network, Path(file).absolute()


def main() -> int:
    """Run the parts; return 1 if cases are left to run."""
    # Ends the case that runs, too, which is in a process group of its own.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    options = parse(sys.argv[1:])
    day = runner.Day(
        options.out,
        deadline=time.monotonic() + 60 * options.minutes - case.GRACE_S,
        # On a GPU, no step is compiled in less.
        shortest_s=10.0 if options.tiny else 60.0,
    )
    print(f"{options.device}{', tiny sizes' if options.tiny else ''}", flush=True)
    parts = [part for part in PARTS if part.name in options.parts]
    left = day.run(parts, options)
    if left:
        print(f"{left} cases are not finished; the same command continues")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
