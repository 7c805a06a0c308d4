r"""Predict a test set and write the archive that its test server accepts.

    python scripts/submit.py voc --workdir=runs/fcn_voc \
        --images=VOCdevkit/VOC2012 --out=voc.tar.gz
    python scripts/submit.py cityscapes --workdir=runs/fcn_cityscapes \
        --images=leftImg8bit --out=cityscapes.zip

The archive is validated against the server's rules; an invalid one is not written.
"""

import argparse
import sys
from pathlib import Path

from tempseg_jax.cli import command


def main() -> int:
    """Parse the command line and write the archive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("server", choices=("voc", "cityscapes"), help="test server")
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="the unpacked folder VOCdevkit/VOC2012 or leftImg8bit",
    )
    parser.add_argument(
        "--split", default="test", help="test, val or train (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="ARCHIVE",
        help="output file: .tar.gz for VOC, .zip for Cityscapes",
    )
    parser.add_argument(
        "--allow_partial",
        action="store_true",
        help="accept an incomplete test set, to try out the command",
    )
    command.add_segmenter_arguments(parser)
    options = parser.parse_args()
    command.prepare()
    with command.one_line_errors(debug=options.debug):
        from tempseg_jax.inference import submission
        from tempseg_jax.inference.submission_rules import RULES

        rules = RULES[options.server]
        images = rules.find(options.images, options.split)
        complete = options.split != "test" or len(images) == rules.images
        if not complete and not options.allow_partial:
            raise ValueError(
                f"{options.images}: has {len(images)} images, but the server accepts "
                f"only the whole test set of {rules.images}; add the missing images, "
                "or pass --allow_partial to try out the command"
            )
        predictor = command.load_segmenter(options)
        outcome = submission.write(predictor, rules, images, out=options.out)
        print(f"{outcome}; validated and written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
