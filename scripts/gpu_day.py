"""Everything worth measuring on a GPU, in one command that can be stopped and resumed.

    python scripts/gpu_day.py --out=DIR --minutes=8
    python scripts/gpu_day.py --out=DIR --minutes=60 --manual_dir=CAMVID

Each part has a time box and consists of cases, each a command of its own. When a case
ends, DIR/PART.json is written again with the results of all cases of the part so far.
Call it again with the same --out to continue: cases that finished with the same options
are skipped, and failed ones are tried again after all others. A case that fails is
recorded with the last line of its error, and the next one starts. DIR/logs has what
each case printed. Nothing is downloaded. On a CPU, or with --tiny, all sizes are tiny,
to try the command itself.

Options that start with --config. are passed on to training (the parts `loop` and
`training`), for example --config.model.pretrained=FILE.
"""

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path

from gpu_parts import cases, runner

from tempseg_jax.cli import huge_pages

PARTS = (
    # name, minutes, function that returns its cases
    runner.Part("precisions", 6, cases.precisions),
    runner.Part("gradients", 4, cases.gradients),
    runner.Part("step_times", 12, cases.step_times),
    runner.Part("flags", 12, cases.flags),
    runner.Part("memory", 6, cases.memory),
    runner.Part("profile", 3, cases.profile),
    runner.Part("loop", 6, cases.loop),
    runner.Part("determinism", 8, cases.determinism),
    runner.Part("training", 600, cases.training),  # until --minutes is over
)


def parse(argv: list[str]) -> cases.Settings:
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
        "--card", default="h100", help="the card for `benchmark.py compile`"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="tiny sizes (default on a CPU)"
    )
    args, overrides = parser.parse_known_args(argv)
    unknown = [word for word in overrides if not word.startswith("--config.")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}")
    if args.manual_dir and not args.manual_dir.is_dir():
        parser.error(f"--manual_dir={args.manual_dir}: this folder does not exist")
    python = shutil.which(args.peer_python)
    if python is None:
        parser.error(f"--peer_python={args.peer_python}: there is no such program")
    on_cpu = huge_pages.computes_on_cpu()
    return cases.Settings(
        out=args.out.absolute(),
        minutes=args.minutes,
        parts=tuple(args.parts),
        manual_dir=args.manual_dir and args.manual_dir.absolute(),
        data_dir=args.data_dir and args.data_dir.absolute(),
        peer_python=python,
        card=args.card,
        device="cpu" if on_cpu else "cuda",
        tiny=args.tiny or on_cpu,
        overrides=tuple(overrides),
    )


def main() -> int:
    """Run the parts; return 1 if cases are left to run."""
    # Ends the case that runs, too, which is in a session of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    settings = parse(sys.argv[1:])
    day = runner.Day(
        settings.out,
        deadline=time.monotonic() + 60 * settings.minutes - runner.GRACE_S,
    )
    print(f"{settings.device}{', tiny sizes' if settings.tiny else ''}", flush=True)
    parts = [part for part in PARTS if part.name in settings.parts]
    left = day.run(parts, settings)
    if left:
        print(f"{left} cases are not finished; the same command continues")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
