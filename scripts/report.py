"""Write the report of a sweep, even if it is not finished, as HTML and as Markdown.

    python scripts/report.py runs/table3 --out=report.html --markdown=tables.md

The HTML page contains its figures and loads no other files. Missing runs are listed on
the page and in the terminal.
"""

import argparse
from pathlib import Path

from tempseg_jax.cli import command
from tempseg_jax.io.atomic import replacing
from tempseg_jax.sweep.copies import copy_sweep
from tempseg_jax.sweep.report import build, html
from tempseg_jax.sweep.report.collect import SweepResults


def main() -> None:
    """Read the sweep and write the HTML page and, if asked for, the Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sweep",
        type=Path,
        help="folder of the sweep, the --workdir of scripts/sweep.py",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        help="HTML page to write (default: %(default)s)",
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        help="Markdown file to write too, with the tables but without the figures",
    )
    parser.add_argument(
        "--block",
        type=int,
        default=1,
        metavar="N",
        help="for confidence intervals over images, resample blocks of N neighboring "
        "images in the order of their ids; give it for frames of videos, which are not "
        "independent (default: %(default)s)",
    )
    parser.add_argument(
        "--copy",
        type=Path,
        metavar="DIR",
        help="copy what the report reads of finished runs to this folder too, to keep "
        "or share it; the sweep can be resumed there",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )
    arguments = parser.parse_args()
    with command.one_line_errors(debug=arguments.debug):
        sweep = SweepResults(arguments.sweep, block=arguments.block)
        report = build.build(sweep)
        _write(arguments.out, html.to_html(report, sweep))
        if arguments.markdown:
            _write(arguments.markdown, build.to_markdown(report))
        if arguments.copy:
            count = copy_sweep(arguments.sweep, arguments.copy)
            print(f"{arguments.copy}: {count} finished runs were added")
    print(report.state)
    for text in report.missing:
        print(f"missing: {text}")
    print(f"{arguments.out}: report of {len(sweep.finals)} of {len(sweep.runs)} runs")


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
