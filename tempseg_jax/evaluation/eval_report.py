"""What `--mode=eval` prints and writes: scores, `eval-<split>.json` and pictures."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import cityscapes_iou, diagrams, metrics
from tempseg_jax.evaluation.result import Result, save_pictures, table
from tempseg_jax.inference.settings import InferenceSettings
from tempseg_jax.io.json_files import read_json, write_json


def check_writable(out: Path) -> None:
    """Check before an evaluation, which takes long, that its files can be written.

    Raises:
        OSError: If they cannot.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not os.access(out, os.W_OK):
        raise PermissionError(
            f"{out}: cannot be written; give another folder with --out=DIR"
        )


def numbers(
    result: Result, split: Split, iou_of_boundaries: Float[np.ndarray, "k"]
) -> dict[str, Any]:
    """Return the scores of the split and of each class, 0 to 1, for the JSON file."""
    confusion = result.sums.confusion
    iou = metrics.iou_per_class(confusion)
    scores = {
        "images": int(result.sums.images),
        "pixels": int(confusion.sum()),
        **result.named(prefix=""),
        "boundary_iou": metrics.mean_of_present(iou_of_boundaries),
        "class_iou": dict(zip(split.class_names, iou.tolist(), strict=True)),
        "class_boundary_iou": dict(
            zip(split.class_names, iou_of_boundaries.tolist(), strict=True)
        ),
        "absent": [
            name for name, x in zip(split.class_names, iou, strict=True) if np.isnan(x)
        ],
        "calibration": {
            name: {
                key: value.tolist() if isinstance(value, np.ndarray) else value
                for key, value in calibrated._asdict().items()
            }
            for name, calibrated in result.calibrations.items()
        },
        "confusion": confusion.tolist(),
    }
    if split.dataset == "cityscapes":
        full = cityscapes_iou.from_train_ids(confusion)
        scores["cityscapes_official_miou"] = cityscapes_iou.official_miou(full)
    return scores


def show(
    report: dict[str, Any], result: Result, split: Split, *, settings: InferenceSettings
) -> None:
    """Print the checkpoint, what was evaluated and how, and the scores."""
    print(f"checkpoint: step {report['checkpoint']}, {report['selected']}")
    print(f"{split.dataset} {split.name}, {_describe(settings)}")
    if "limit" in report:
        images, total = report["limit"]["images"], report["limit"]["of"]
        print(f"only {images} of {total} images, evenly spaced (--limit)")
    for gap in split.gaps():
        print(f"note: {gap}")
    print(table(result, split))
    for line in _more_lines(report):
        print(line)


def _more_lines(report: dict[str, Any]) -> list[str]:
    lines = [f"  boundary IoU {100 * report['boundary_iou']:.2f}"]
    if "cityscapes_official_miou" in report:
        official = report["cityscapes_official_miou"]
        lines.append(
            f"  mIoU by Cityscapes' official script (labelIds) {100 * official:.2f}, "
            f"from this confusion matrix (trainIds) {100 * report['miou']:.2f}"
        )
    return lines


def _describe(settings: InferenceSettings) -> str:
    windows = "whole images (in windows if they are above 2048x1024 pixels)"
    if settings.window is not None:
        window, stride = settings.windows(0, 0)
        windows = f"windows of {window} pixels every {stride}"
    scales = ", ".join(f"{scale:g}" for scale in settings.scales)
    return f"{windows}, scales {scales}" + (", flipped" if settings.flip else "")


def save(
    report: dict[str, Any], result: Result, split: Split, *, out: Path, workdir: Path
) -> None:
    """Write `eval-<split>.json`, its diagrams, and pictures of a few images.

    A line says if this replaces another evaluation.

    Args:
        report: The contents of the JSON file.
        result: The result of the evaluation.
        split: The evaluated split.
        out: The folder to write to.
        workdir: The workdir, whose log has the training curves.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If the log is damaged; the JSON file is written before.
    """
    name = split.name
    if "limit" in report:
        name += f"-limit{report['limit']['images']}"
    path = out / f"eval-{name}.json"
    if path.exists() and (was := _differences(path, report)):
        print(f"note: {path} is replaced; it was of another evaluation ({was})")
    # First, because pictures may fail: curves.png needs a log that is not damaged.
    write_json(path, report)
    titles = {"one": "T = 1", "t_g": "T = T_G = {:.3g}", "fitted": "fitted, T = {:.3g}"}
    diagrams.save_reliability(
        {
            titles[name].format(calibrated.temperature): calibrated
            for name, calibrated in result.calibrations.items()
        },
        out / f"eval-{name}-reliability.png",
    )
    diagrams.save_confusion(
        result.sums.confusion,
        split.class_names,
        out / f"eval-{name}-confusion.png",
    )
    save_pictures(
        result,
        split,
        out / "predictions" / name,
        workdir=workdir,
        curves=out / "curves.png",
    )


def _differences(path: Path, report: dict[str, Any]) -> str:
    """Say in what an earlier evaluation differs; "" if only its scores may."""
    try:
        before = read_json(path, remedy="")
    except ValueError:  # the new scores, of hours perhaps, must not be lost
        return "it is not JSON"
    if not isinstance(before, dict):
        return "it is not a JSON object"
    return ", ".join(
        f"{name} {before.get(name, 'not recorded')}"
        for name in ("checkpoint", "inference", "precision")
        if json.loads(json.dumps(report[name])) != before.get(name)
    )
