"""Serve a local web page that predicts an uploaded image.

    python scripts/demo_page.py --workdir=runs/demo

The page shows the overlay, the area of each class, and the effect of the temperature on
the probabilities and their entropy. It needs Gradio: pip install -e '.[demo]'.
"""

import argparse
import sys

from tempseg_jax.cli import command


def main() -> int:
    """Parse the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--port",
        type=int,
        default=7860,
        help="port of the page; 0 chooses a free one (default: %(default)s)",
    )
    command.add_segmenter_arguments(parser)
    options = parser.parse_args()
    command.prepare()
    with command.one_line_errors(debug=options.debug):
        predictor = command.load_segmenter(options)
        from tempseg_jax.inference import demo_page

        demo_page.serve(predictor, port=options.port, wait=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
