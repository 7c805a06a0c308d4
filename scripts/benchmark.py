"""Measure the input pipeline, or a training step.

    python scripts/benchmark.py data --manual_dir=VOCDIR
    python scripts/benchmark.py train

Each benchmark has its own options: add --help after its name.
"""

import argparse
import importlib
import sys

_HELP = {
    "data": "throughput of the input pipeline in images per second",
    "train": "time, memory and throughput of a training step",
}


def main() -> int:
    """Run one benchmark; `train` does not import the libraries of the data pipeline."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", choices=_HELP, help="; ".join(map(": ".join, _HELP.items()))
    )
    what, rest = parser.parse_args(sys.argv[1:2]).what, sys.argv[2:]
    module = importlib.import_module(f"benchmark_{what}")
    options = argparse.ArgumentParser(
        prog=f"benchmark.py {what}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(options)
    return module.run(options.parse_args(rest))


if __name__ == "__main__":
    sys.exit(main())
