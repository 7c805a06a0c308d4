"""Draw what D, the temperature and both add to the mIoU, of several sweeps.

    python scripts/compare_sweeps.py few=runs/images16 more=runs/images64 --split=test

The sweeps need the table `controls`, or 3, which has no T_G without D. The figure,
answers.svg, has the paired differences over seeds with 95 % confidence intervals; what
a sweep has not trained is left out.
"""

import argparse
from pathlib import Path

from tempseg_jax.cli import command
from tempseg_jax.sweep.report import figures
from tempseg_jax.sweep.report.collect import SweepResults


def main() -> None:
    """Read the sweeps and write the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sweeps",
        nargs="+",
        metavar="NAME=FOLDER",
        help="name in the legend, and folder of a sweep or of a copy of it",
    )
    parser.add_argument(
        "--split",
        choices=("val", "test"),
        default="val",
        help="whose mIoU to draw (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("answers.svg"),
        help="SVG file to write (default: %(default)s)",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )
    arguments = parser.parse_args()
    with command.one_line_errors(debug=arguments.debug):
        sweeps: dict[str, SweepResults] = {}
        for argument in arguments.sweeps:
            name, equals, folder = argument.partition("=")
            if not (name and equals and folder):
                raise ValueError(f"{argument!r}: give NAME=FOLDER")
            if name in sweeps:
                raise ValueError(f"{argument!r}: the name {name!r} is given twice")
            sweeps[name] = SweepResults(folder)
        figure = figures.answers(sweeps, arguments.split)
        if figure is None:
            raise ValueError(
                f"--split={arguments.split}: no sweep has two settings to compare "
                "there; train them with scripts/sweep.py --table=3,controls, and give "
                "--test_split=test for --split=test"
            )
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_bytes(figure.svg())
        print(f"{arguments.out}: written")


if __name__ == "__main__":
    main()
