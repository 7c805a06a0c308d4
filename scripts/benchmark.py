"""Measure on this machine: `python scripts/benchmark.py data …` or `… train …`."""

import argparse
import importlib
import sys

_HELP = {
    "data": "images a second out of the input pipeline",
    "train": "milliseconds a step of training and inference",
}


def main() -> int:
    """Import and run the named benchmark alone: `train` needs no data libraries."""
    parser = argparse.ArgumentParser(description=__doc__)
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
