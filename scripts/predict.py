"""Predict image files with a trained network.

    python scripts/predict.py --workdir=runs/demo IMAGE_OR_FOLDER... --out=DIR

DIR/labels/*.png are indexed images whose pixels are class indices and whose palette has
the dataset's colors. DIR/overlays/*.jpg are the images with the predicted classes in
color and a legend.
"""

import argparse
import sys
from pathlib import Path

from tempseg_jax.cli import command


def main() -> int:
    """Parse the command line and predict every image."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE_OR_FOLDER",
        help="image files, and folders that are searched recursively",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder"
    )
    command.add_segmenter_arguments(parser)
    options = parser.parse_args()
    command.prepare()
    with command.one_line_errors(debug=options.debug):
        from tempseg_jax.inference import image_files
        from tempseg_jax.inference.predict_files import predict_files

        files, left_out = image_files.find(options.images, out=options.out)
        if left_out:
            print(left_out, file=sys.stderr)
        predictor = command.load_segmenter(options)
        outcome = predict_files(predictor, files, out=options.out)
        print(f"{outcome}; written to {options.out}")
        if outcome.broken:
            raise ValueError(
                f"{len(outcome.broken)} of {len(files)} images could not be read: "
                + "; ".join(outcome.broken)
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
