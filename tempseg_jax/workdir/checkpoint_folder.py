"""The folder `checkpoints` of a workdir: which steps it holds, their scores, deletion.

Nothing here reads or writes arrays; checkpoint.py does.
"""

import json
import math
import os
import shutil
from pathlib import Path

from tempseg_jax.io.atomic import sync_folder
from tempseg_jax.io.json_files import write_json
from tempseg_jax.workdir import digests

BEST_METRIC = "miou"
"""The validation metric of which the highest value makes a checkpoint the best."""

SCORES = "scores.json"
"""Validation scores, which are added to the folder of a saved checkpoint."""

_DELETED = ".deleted"
_UNFINISHED = ".orbax-checkpoint-tmp"


class DamagedCheckpoint(ValueError):
    """A checkpoint that is incomplete, or is not what was saved.

    Attributes:
        step: Its step.
        folder: Its folder.
        reason: What is wrong with it.
    """

    def __init__(self, folder: Path, reason: str):
        """Describe the damage of the checkpoint in `folder`."""
        self.folder, self.step, self.reason = folder, int(folder.name), reason
        others = [str(x) for x in steps(folder.parent) if x != self.step]
        super().__init__(
            f"{folder}: the checkpoint is damaged ({reason}); use another one "
            f"(available: {', '.join(others) or 'none'}), or start training again, "
            "which goes on from the newest one that is good"
        )


def steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints, in ascending order."""
    if not folder.is_dir():
        return []
    found = (x for x in folder.iterdir() if x.name.isdigit() and x.is_dir())
    return sorted(int(x.name) for x in found)


def write_scores(folder: Path, scores: dict[str, float]) -> None:
    """Add the validation scores to a checkpoint.

    Raises:
        OSError: If they cannot be written.
    """
    scores = {name: _none_if_nan(value) for name, value in scores.items()}
    content = {"scores": scores, "sha256": digests.of_json(scores)}
    write_json(folder / SCORES, content)


def miou(folder: Path) -> float | None:
    """Return the validation mIoU of a checkpoint; None if it was not evaluated.

    It is NaN if every pixel of the validation split is void.

    Raises:
        DamagedCheckpoint: If its scores cannot be read.
    """
    path, old = folder / SCORES, folder / "metrics" / "metrics"
    try:
        if path.exists():
            content = json.loads(path.read_text())
            scores = content["scores"]
            if digests.of_json(scores) != content["sha256"]:
                raise ValueError("they are not what was saved")
            value = scores[BEST_METRIC]
            return math.nan if value is None else float(value)
        if old.exists():  # NaN there means that it was not evaluated, or all is void
            value = float(json.loads(old.read_text())[BEST_METRIC])
            return None if math.isnan(value) else value
    except (ValueError, KeyError, TypeError) as error:
        path = path if path.exists() else old
        raise DamagedCheckpoint(
            folder,
            f"the scores in {path.relative_to(folder)} cannot be read: {error!s:.80}; "
            "without that file it counts as not evaluated",
        ) from None
    return None


def best(folder: Path) -> int | None:
    """Return the step with the highest validation mIoU; None if none was evaluated.

    Raises:
        DamagedCheckpoint: If the scores of a checkpoint cannot be read.
    """
    scored = {step: miou(folder / str(step)) for step in steps(folder)}
    ranked = _ranked({step: x for step, x in scored.items() if x is not None})
    return ranked[-1] if ranked else None


def kept(folder: Path) -> set[int]:
    """Return the steps to keep: the latest two and the best.

    The latest but one is the one to go on from if the latest is damaged. A checkpoint
    whose scores cannot be read may be the best, and is kept.
    """
    known, unreadable = {}, set()
    for step in steps(folder):
        try:
            value = miou(folder / str(step))
        except DamagedCheckpoint:
            unreadable.add(step)
            continue
        if value is not None:
            known[step] = value
    return {*steps(folder)[-2:], *_ranked(known)[-1:], *unreadable}


def _ranked(mious: dict[int, float]) -> list[int]:
    """Return the steps from the lowest mIoU to the highest; NaN is the lowest."""
    order = {step: (-1.0 if math.isnan(x) else x, step) for step, x in mious.items()}
    return sorted(order, key=order.__getitem__)


def delete(folder: Path) -> None:
    """Delete a checkpoint; a process that reads it finds all of it or nothing."""
    doomed = folder.with_name(folder.name + _DELETED)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint, and return its new path.

    Raises:
        OSError: If it cannot be renamed.
    """
    number, new = 1, folder.with_name(folder.name + ".damaged")
    while new.exists():
        number += 1
        new = folder.with_name(f"{folder.name}.damaged-{number}")
    folder.rename(new)
    return new


def clean(folder: Path) -> None:
    """Delete what a killed training left behind; only the holder of the lock may."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.endswith(_DELETED) or _UNFINISHED in path.name:
                shutil.rmtree(path, ignore_errors=True)


def sync(folder: Path) -> None:
    """Flush a checkpoint to disk, so that a power failure cannot damage it.

    Raises:
        OSError: If the disk reports an error.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(Path(parent) / name, "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))
    sync_folder(folder.parent)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
