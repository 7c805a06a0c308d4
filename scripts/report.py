"""Make one page of what a sweep left on disk, finished or not.

python scripts/report.py runs/table3 --out=report.html --markdown=tables.md
"""

import argparse
from pathlib import Path

from tempseg_jax.cli import command
from tempseg_jax.sweep.report import build, html
from tempseg_jax.sweep.report.collect import Evidence


def main() -> None:
    """Read the sweep, write the page and, if asked for, the tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, help="the --workdir of scripts/sweep.py")
    parser.add_argument("--out", type=Path, default=Path("report.html"))
    parser.add_argument("--markdown", type=Path, help="the tables alone")
    parser.add_argument(
        "--block",
        type=int,
        default=1,
        metavar="N",
        help="resample images in runs of N neighbors, in the order of their ids, for "
        "the interval over images: for frames of films, which are not independent",
    )
    parser.add_argument("--debug", action="store_true", help="show where it failed")
    arguments = parser.parse_args()
    with command.one_line_errors(debug=arguments.debug):
        evidence = Evidence(arguments.sweep, block=arguments.block)
        found = build.build(evidence)
        _write(arguments.out, html.to_html(found, evidence))
        if arguments.markdown:
            _write(arguments.markdown, build.to_markdown(found))
    print(found.state.partition(";")[0])
    for text in found.missing:
        print(f"missing: {text}")
    print(f"{len(evidence.finals)} of {len(evidence.runs)} runs, in {arguments.out}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
