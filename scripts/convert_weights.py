"""Convert a PyTorch checkpoint to safetensors.

    python scripts/convert_weights.py vgg16-397923af.pth vgg16.safetensors

This script needs only torch and safetensors; run it in any environment that has both.
The checkpoint is loaded with weights_only=True, which unpickles nothing but tensors.
Weights that were converted from Caffe have torchvision's tensor names but expect BGR
input that is not divided by a standard deviation. For these pass --preprocessing=caffe,
which is stored in the metadata of the safetensors file.
"""

import argparse
import os
import sys
from pathlib import Path


def convert(source: Path, target: Path, *, preprocessing: str | None) -> int:
    """Write `target`, and return its number of tensors.

    Raises:
        ModuleNotFoundError: If torch or safetensors is not installed.
        OSError: If the target cannot be written.
        ValueError: If the source does not exist, is damaged, or holds anything but the
            tensors of one model.
    """
    import torch
    from safetensors.torch import save_file

    if not source.is_file():
        raise ValueError(f"{source} does not exist; pass the path of a checkpoint")
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle each raise their own
        raise ValueError(
            f"{source} is damaged or holds objects other than tensors: torch.load with "
            f"weights_only=True raised {type(error).__name__}; save the model's "
            "state_dict and convert that"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(map(torch.is_tensor, content.values())):
        raise ValueError(
            f"{source} does not hold the state_dict of one model; save that with "
            "torch.save(model.state_dict(), path) and convert it"
        )
    tensors = {
        name.removeprefix("module."): tensor.clone().contiguous()
        for name, tensor in content.items()
    }
    # Not `tempseg_jax.io.atomic`: the package needs JAX, this script must not.
    partial = target.with_name(target.name + ".part")
    metadata = {"format": "pt"}
    if preprocessing is not None:
        metadata["preprocessing"] = preprocessing
    save_file(tensors, partial, metadata)
    os.replace(partial, target)
    return len(tensors)


def main() -> None:
    """Parse the command line; on an error print one line and exit with code 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, help="checkpoint to read (.pth, .pt or .bin)"
    )
    parser.add_argument("target", type=Path, help="file to write (.safetensors)")
    parser.add_argument(
        "--preprocessing",
        choices=("torchvision", "caffe"),
        help="input that the weights expect: RGB normalized by torchvision's mean and "
        "standard deviation, or BGR minus Caffe's mean; by default that of the library "
        "whose tensor names the file has",
    )
    args = parser.parse_args()
    try:
        count = convert(args.source, args.target, preprocessing=args.preprocessing)
    except ModuleNotFoundError as error:
        sys.exit(
            f"error: {error.name} is not installed; run this script in an environment "
            "that has both (in a new venv: pip install torch safetensors)"
        )
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    preprocessing = args.preprocessing or "by the tensor names"
    print(f"{args.target}: {count} tensors, preprocessing {preprocessing}")


if __name__ == "__main__":
    main()
