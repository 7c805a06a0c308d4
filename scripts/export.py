"""Export a trained network for use without this package.

    python scripts/export.py --workdir=runs/demo --out=model

The output folder has StableHLO programs (of jax.export) from uint8 RGB images to labels
and to probabilities, the weights as safetensors, and a file use.py that runs them. The
programs run on CPUs and on CUDA GPUs, no matter which of them the exporting machine
has. Add --onnx --size=512x1024 for an ONNX file for images of that size.
"""

import argparse
import re
import sys
from pathlib import Path

from tempseg_jax.cli import command


def main() -> int:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder"
    )
    parser.add_argument(
        "--batch",
        type=int,
        help="fixed batch size (default: any; 1 in the ONNX file)",
    )
    parser.add_argument(
        "--size",
        metavar="HEIGHTxWIDTH",
        help="fixed image size in pixels (default: any)",
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also write model.onnx; needs --size and --precision=float32",
    )
    command.add_segmenter_arguments(parser)
    options = parser.parse_args()
    command.prepare()
    with command.one_line_errors(debug=options.debug):
        height, width = _size(options.size)
        if options.onnx and height is None:
            raise ValueError(
                "--onnx: needs a fixed image size; pass --size, such as --size=512x1024"
            )
        if options.batch is not None and options.batch < 1:
            raise ValueError(f"--batch={options.batch}: must be 1 or more")
        from tempseg_jax.inference.export import Shape, export, is_export

        onnx = options.out / "model.onnx"
        if options.onnx and onnx.exists() and not is_export(options.out):
            raise ValueError(
                f"{onnx}: would be replaced, but this command has not written it; "
                "choose another folder"
            )
        predictor = command.load_segmenter(options)
        shape = Shape(options.batch, height, width)
        names = export(predictor, options.out, shape=shape)
        print(f"{options.out}: {', '.join(names)}")
        if options.onnx:
            from tempseg_jax.inference.export_onnx import export_onnx

            shape = shape._replace(batch=options.batch or 1)
            difference = export_onnx(predictor, onnx, shape=shape)
            print(
                f"{onnx}: onnxruntime's probabilities differ from JAX's by at most "
                f"{difference:.1e}"
            )
    return 0


def _size(text: str | None) -> tuple[int, int] | tuple[None, None]:
    if text is None:
        return None, None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise ValueError(f"--size={text}: must be HEIGHTxWIDTH, such as 512x1024")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    sys.exit(main())
