"""Predictor photographs with a trained network.

    python scripts/predict.py --workdir=runs/demo IMAGE_OR_FOLDER... --out=DIR

Writes DIR/labels/*.png, whose pixels are the classes' indices (with the dataset's
colors as their palette), and DIR/overlays/*.jpg to look at, with a legend.
"""

import argparse
import sys
from pathlib import Path

from tempseg_jax.cli import command


def main() -> int:
    """Parse the command line and segment every image."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_segmenter_arguments(parser)
    options = parser.parse_args()
    command.prepare()
    with command.one_line_errors(debug=options.debug):
        from tempseg_jax.inference import image_files
        from tempseg_jax.inference.predict_files import predict_files

        files = image_files.find(options.images)
        segment = command.load_segmenter(options)
        outcome = predict_files(segment, files, out=options.out)
        print(f"{outcome}; written to {options.out}")
        if outcome.broken:
            raise ValueError(
                f"{len(outcome.broken)} of {len(files)} images could not be used: "
                + "; ".join(outcome.broken)
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
