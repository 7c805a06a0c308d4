"""Measure the input pipeline, a training step or an evaluation, or compile a step.

    python scripts/benchmark.py data --manual_dir=VOCDIR
    python scripts/benchmark.py train
    python scripts/benchmark.py evaluate --window=1024
    python scripts/benchmark.py compile --config=configs/fcn_voc.py --card=h100

Each benchmark has its own options: add --help after its name.
"""

import argparse
import importlib
import sys

_HELP = {
    "compile": "memory and kernels of a step on a GPU that is not here",
    "evaluate": "time of an evaluation beside the network alone, and its memory",
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
    module = importlib.import_module(f"benchmark_parts.{what}")
    options = argparse.ArgumentParser(
        prog=f"benchmark.py {what}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(options)
    arguments, others = options.parse_known_args(rest)
    if what == "compile":  # argparse cannot declare --config.FIELD=VALUE
        arguments.overrides = others
    elif others:
        options.error(f"unrecognized arguments: {' '.join(others)}")
    return module.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
