"""Predictor a test set and pack the result for its server.

    python scripts/submit.py voc --workdir=runs/fcn_voc \
        --images=VOCdevkit/VOC2012 --out=voc.tar.gz
    python scripts/submit.py cityscapes --workdir=runs/fcn_cityscapes \
        --images=leftImg8bit --out=cityscapes.zip

The archive is checked against the server's rules before it gets its name.
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
    parser.add_argument("server", choices=("voc", "cityscapes"))
    parser.add_argument(
        "--images", type=Path, required=True, help="VOCdevkit/VOC2012, or leftImg8bit"
    )
    parser.add_argument("--split", default="test", help="test (default), val, train")
    parser.add_argument("--out", type=Path, required=True, metavar="ARCHIVE")
    parser.add_argument(
        "--allow_partial", action="store_true", help="also for a part of the test set"
    )
    command.add_segmenter_arguments(parser)
    options = parser.parse_args()
    command.prepare()
    with command.one_line_errors(debug=options.debug):
        from tempseg_jax.inference import submission

        rules = submission.RULES[options.server]
        images = rules.find(options.images, options.split)
        whole = options.split != "test" or len(images) == rules.images
        if not whole and not options.allow_partial:
            raise ValueError(
                f"{options.images}: {len(images)} images, but the test set has "
                f"{rules.images} and the server refuses less; complete it, or pass "
                "--allow_partial to try out"
            )
        segment = command.load_segmenter(options)
        outcome = submission.write(segment, rules, images, out=options.out)
        print(f"{outcome}; checked and written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
