"""Share a trained network: write it to a folder, or upload it to the Hugging Face Hub.

    python scripts/publish.py --workdir=runs/demo --out=demo_model
    python scripts/publish.py --workdir=runs/demo --repo=USER/NAME

The folder holds the weights (safetensors), the names and colors of the classes, the
preprocessing, the config of training, and a model card with the scores of the workdir.
`tempseg_jax.load` takes the folder, or hf://USER/NAME. To upload, log in before with
`hf auth login`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tempseg_jax.cli import command


def main() -> int:
    """Parse the command line, and write or upload the network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, help="folder of a training run")
    parser.add_argument(
        "--checkpoint",
        default="best",
        help='"best" (highest validation mIoU, the default), "latest", or a step',
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--repo", metavar="USER/NAME", help="repository on the Hub to upload to"
    )
    parser.add_argument(
        "--private", action="store_true", help="create a private repository"
    )
    parser.add_argument(
        "--license",
        default="other",
        help="license of the weights, by its name on the Hub (default: other)",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )
    options = parser.parse_args()
    command.prepare()
    with command.one_line_errors(debug=options.debug):
        publish(options)
    return 0


def publish(options: argparse.Namespace) -> None:
    """Write the folder, and upload it if a repository is given."""
    from tempseg_jax.inference import published, restore
    from tempseg_jax.inference.model_card import model_card
    from tempseg_jax.workdir import saved_config

    if not options.out and not options.repo:
        raise ValueError("neither --out nor --repo is given; give one of them, or both")
    segmenter = restore.load(options.workdir, options.checkpoint)
    address = f"{published.HUB}{options.repo}" if options.repo else str(options.out)
    card = model_card(
        segmenter, options.workdir, address=address, license_name=options.license
    )
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        published.write(
            segmenter.variables,
            segmenter.model,
            step=segmenter.step,
            card=card,
            config=saved_config.without_folders(options.workdir),
            out=out,
        )
        what = f"checkpoint {segmenter.step} of {options.workdir}"
        if options.out:
            print(f"{what}: written to {out}")
        if options.repo:
            published.upload(out, options.repo, private=options.private)
            print(f"{what}: uploaded to {options.repo}")
    print(f'use it by tempseg_jax.load("{address}")')


if __name__ == "__main__":
    sys.exit(main())
