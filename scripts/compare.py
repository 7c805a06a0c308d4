"""Draw the training curves of several runs in one figure.

    python scripts/compare.py runs/pretrained runs/scratch --out=curves.png

The figure has the segmentation loss and the validation mIoU of each run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tempseg_jax.cli import command
from tempseg_jax.evaluation import plots
from tempseg_jax.workdir.metrics_writer import read_metrics


def main() -> None:
    """Read the metrics.jsonl of each workdir and draw them, named by their folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "workdirs", type=Path, nargs="+", metavar="WORKDIR", help="workdir of a run"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("curves.png"),
        help="PNG file to write (default: %(default)s)",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )
    arguments = parser.parse_args()
    with command.one_line_errors(debug=arguments.debug):
        if arguments.out.suffix != ".png":
            raise ValueError(f"--out={arguments.out}: give a name that ends in .png")
        runs = {}
        for name, folder in _named(arguments.workdirs).items():
            runs[name] = read_metrics(folder)
            if not runs[name]:
                raise FileNotFoundError(
                    f"{folder}/metrics.jsonl: missing or empty; give the workdir of a "
                    "run"
                )
        plots.save_comparison(runs, arguments.out)
        print(f"{arguments.out}: written")


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """Name each folder by the shortest end of its path that no other folder has.

    Raises:
        ValueError: If a folder is given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    named = {}
    for folder, own in zip(folders, parts, strict=True):
        if parts.count(own) > 1:
            raise ValueError(f"{folder}: given twice; give each workdir once")
        ends = (own[-n:] for n in range(1, len(own) + 1))
        unique = (x for x in ends if sum(y[-len(x) :] == x for y in parts) == 1)
        named[str(Path(*next(unique)))] = folder
    return named


if __name__ == "__main__":
    main()
