"""What TensorBoard shows of an evaluation, besides the scores of metrics.jsonl."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import diagrams, metrics, plots
from tempseg_jax.evaluation.result import Result
from tempseg_jax.types import IGNORE_LABEL

_STRIDE = 4  # every how many-th row and column of a batch is counted


class ClassShares:
    """Shares of the classes and of void in the labels that were trained on.

    Every 4th row and column of the batches of this process is counted.
    """

    def __init__(self, class_names: tuple[str, ...]):
        self._names = class_names
        self._pixels = np.zeros(256, np.int64)

    def add(self, labels: UInt8[np.ndarray, "b h w"]) -> None:
        """Count the labels of a batch."""
        some = labels[:, ::_STRIDE, ::_STRIDE].ravel()
        self._pixels += np.bincount(some, minlength=256)

    def scalars(self) -> dict[str, float]:
        """Return the share of the pixels of each class, from 0 to 1, and of void.

        Void has the name `void_255`, because `void` may be the name of a class.
        """
        total = max(int(self._pixels.sum()), 1)
        of_classes = self._pixels[: len(self._names)].tolist()
        counts = dict(zip(self._names, of_classes, strict=True))
        counts[f"void_{IGNORE_LABEL}"] = int(self._pixels[IGNORE_LABEL])
        return {f"train_share/{name}": n / total for name, n in counts.items()}


def scalars(result: Result, split: Split) -> dict[str, float]:
    """Return the IoU of each class that is present, under `val_iou/<class>`."""
    iou = metrics.iou_per_class(result.sums.confusion)
    return {
        f"val_iou/{name}": float(value)
        for name, value in zip(split.class_names, iou, strict=True)
        if not np.isnan(value)
    }


def pictures(
    result: Result, split: Split, *, with_confusion: bool
) -> dict[str, UInt8[np.ndarray, "_ _ 3"]]:
    """Return panels of image, ground truth and prediction; and the confusion matrix.

    Args:
        result: The result of the evaluation.
        split: The evaluated split.
        with_confusion: Whether to draw the confusion matrix, as after the last step.
    """
    shown = {
        f"val/{example.id}": plots.panel(example, palette=split.palette)
        for example in result.examples
    }
    if with_confusion:
        stream = io.BytesIO()
        diagrams.save_confusion(result.sums.confusion, split.class_names, stream)
        with Image.open(stream) as picture:
            shown["val/confusion"] = np.array(picture.convert("RGB"))
    return shown
