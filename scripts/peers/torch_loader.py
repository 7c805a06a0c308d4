"""Images per second of a PyTorch DataLoader: the peer of `scripts/benchmark.py data`.

    python scripts/peers/torch_loader.py --root=VOCdevkit/VOC2012 --workers=2

It does the work of this project's input pipeline in worker processes. Each image and
its mask are decoded (OpenCV, Pillow), scaled by a factor from U(0.5, 2), padded with
the mean color and void, cropped at random and flipped. Batches are uint8. One JSON
object is printed.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

try:
    import torch
    from torch.utils.data import DataLoader, Dataset
except ImportError:
    sys.exit("error: PyTorch is not installed in this Python; pip install torch")

PAD_COLOR, VOID = (124, 116, 104), 255


class VOC(Dataset):
    """Augmented crops of the images that a list of PASCAL VOC names."""

    def __init__(self, root: Path, split: str, crop: int, *, images: int) -> None:
        """Read the list of the split, and repeat it to at least so many images."""
        listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        names = listed.read_text().split()
        self.names = names * -(-images // len(names))
        self.root, self.crop = root, crop

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return one crop: image (crop, crop, 3) and label (crop, crop), uint8."""
        name = self.names[index]
        image = cv2.imread(str(self.root / "JPEGImages" / f"{name}.jpg"))
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        with Image.open(self.root / "SegmentationClass" / f"{name}.png") as mask:
            label = np.asarray(mask)
        # torch seeds each worker and epoch differently; NumPy's own state is copied.
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        scale = rng.uniform(0.5, 2)
        height, width = (max(1, round(scale * n)) for n in label.shape)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
        bottom, right = max(0, self.crop - height), max(0, self.crop - width)
        if bottom or right:
            border = (0, bottom, 0, right, cv2.BORDER_CONSTANT)
            image = cv2.copyMakeBorder(image, *border, value=PAD_COLOR)
            label = cv2.copyMakeBorder(label, *border, value=VOID)
        y, x = (rng.integers(n - self.crop + 1) for n in label.shape)
        window = np.s_[y : y + self.crop, x : x + self.crop]
        image, label = image[window], label[window]
        if rng.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        return np.ascontiguousarray(image), np.ascontiguousarray(label)


def rate(loader: DataLoader) -> float:
    """Return the images per second of one epoch, after its first batches."""
    batches = iter(loader)
    # Batches that were prefetched before the clock starts must not be counted.
    for _ in range(_prefetched(loader.num_workers)):
        next(batches)
    start, images = time.perf_counter(), 0
    for image, _ in batches:
        images += len(image)
    return images / (time.perf_counter() - start)


def _prefetched(workers: int) -> int:
    return 2 * workers + 1  # two for each worker by default


def main() -> None:
    """Print the median rate over the epochs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the folder VOC2012")
    parser.add_argument("--split", default="trainval")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=416)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    cv2.setNumThreads(0)  # the workers are the parallelism
    least = 40 + _prefetched(args.workers)  # batches
    loader = DataLoader(
        VOC(args.root, args.split, args.crop, images=least * args.batch),
        args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )
    rates = [rate(loader) for _ in range(args.epochs)]
    result = {
        "mode": "peer",
        "framework": f"torch {torch.__version__}",
        "images_per_s": round(statistics.median(rates), 1),
        "spread": [round(min(rates), 1), round(max(rates), 1)],
        "num_workers": args.workers,
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
