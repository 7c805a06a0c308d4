"""Convert a PyTorch checkpoint of VGG-16 or ResNet-50 to safetensors.

    python scripts/convert_weights.py vgg16-397923af.pth vgg16.safetensors

Needs torch and safetensors only: run it in any environment that has them. The file is
loaded with weights_only=True, which unpickles tensors and nothing else. Weights that
were themselves converted from Caffe carry torchvision's names, but expect BGR without
division: say so with --preprocessing=caffe, and the written file will.
"""

import argparse
import os
import sys
from pathlib import Path


def convert(source: Path, target: Path, *, preprocessing: str) -> int:
    """Write `target`; return how many tensors it has.

    Raises:
        ModuleNotFoundError: torch is not installed.
        ValueError: there is no such file, it is damaged, or holds more than tensors.
    """
    import torch
    from safetensors.torch import save_file

    if not source.is_file():
        raise ValueError(f"there is no file {source}")
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle each raise their own
        raise ValueError(
            f"{source} is damaged, or holds more than tensors: torch refuses to load "
            f"it with weights_only=True ({type(error).__name__})"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(map(torch.is_tensor, content.values())):
        raise ValueError(f"{source} does not hold one model's state_dict")
    tensors = {
        name.removeprefix("module."): tensor.clone().contiguous()
        for name, tensor in content.items()
    }
    partial = target.with_name(target.name + ".part")
    save_file(tensors, partial, {"format": "pt", "preprocessing": preprocessing})
    os.replace(partial, target)
    return len(tensors)


def main() -> None:
    """Parse the command line; one line and exit code 1 where it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a .pth, .pt or .bin file")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--preprocessing",
        choices=("torchvision", "caffe"),
        default="torchvision",
        help="what input the weights expect: torchvision's RGB mean and standard "
        "deviation (default), or Caffe's BGR minus the mean",
    )
    args = parser.parse_args()
    try:
        count = convert(args.source, args.target, preprocessing=args.preprocessing)
    except ModuleNotFoundError as error:
        sys.exit(
            f"error: {error.name} is not installed here; run this script where torch "
            "and safetensors are (pip install torch safetensors, in a venv of its own)"
        )
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.target}: {count} tensors, preprocessing {args.preprocessing}")


if __name__ == "__main__":
    main()
