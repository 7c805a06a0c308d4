"""Export a trained network to use it without this package.

    python scripts/export.py --workdir=runs/demo --out=model

Writes StableHLO programs (through jax.export, for CPU and CUDA) from uint8 RGB images
to labels and to probabilities, the weights as safetensors, and a file use.py that runs
them. Add --onnx --size=512x1024 for an ONNX file of that size.
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
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--batch", type=int, help="images in a call; default: any number"
    )
    parser.add_argument("--size", help="HEIGHTxWIDTH in pixels; default: any size")
    parser.add_argument("--onnx", action="store_true", help="also model.onnx")
    command.add_segmenter_arguments(parser)
    options = parser.parse_args()
    command.prepare()
    with command.one_line_errors(debug=options.debug):
        height, width = _size(options.size)
        if options.onnx and height is None:
            raise ValueError("--onnx needs a fixed --size, such as --size=512x1024")
        if options.batch is not None and options.batch < 1:
            raise ValueError(f"--batch={options.batch}: give 1 or more")
        from tempseg_jax.inference.export import Shape, export

        segment = command.load_segmenter(options)
        shape = Shape(options.batch, height, width)
        names = export(segment, options.out, shape=shape)
        print(f"{options.out}: {', '.join(names)}")
        if options.onnx:
            from tempseg_jax.inference.export_onnx import export_onnx

            path = options.out / "model.onnx"
            shape = shape._replace(batch=options.batch or 1)
            difference = export_onnx(segment, path, shape=shape)
            print(f"{path}: onnxruntime's probabilities differ by {difference:.1e}")
    return 0


def _size(text: str | None) -> tuple[int, int] | tuple[None, None]:
    if text is None:
        return None, None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise ValueError(f"--size={text}: not HEIGHTxWIDTH, such as 512x1024")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    sys.exit(main())
