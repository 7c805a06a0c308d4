"""Evaluate one checkpoint on a whole split: `--mode=eval`."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from tempseg_jax import builders, mesh
from tempseg_jax.builders import config_fields
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.decoder import has_labels
from tempseg_jax.data.subset import evenly_spaced
from tempseg_jax.evaluation import calibration, eval_report
from tempseg_jax.evaluation.boundary_iou import BoundaryIoU, boundary_iou
from tempseg_jax.evaluation.result import PANELS, Result, score
from tempseg_jax.inference.settings import InferenceSettings
from tempseg_jax.workdir.checkpoint import Checkpoints, StepOrName


def evaluate(
    config: ConfigDict,
    folder: str | Path,
    *,
    checkpoint: StepOrName,
    split_name: str | None,
    settings: InferenceSettings,
    fit: bool,
    limit: int | None = None,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint; print scores, write `eval-<split>.json` and pictures.

    They replace those of an earlier evaluation of the split, which a line says if its
    checkpoint, inference or precision was another.

    Args:
        config: The config, whose network must be that of the checkpoint.
        folder: The workdir.
        checkpoint: "best", "latest" or a step.
        split_name: Split to evaluate; None is `data.val_split`.
        settings: Sliding-window inference and test-time augmentation.
        fit: Whether to measure calibration also at the temperature that minimizes the
            negative log-likelihood on `data.val_split`; this takes another pass over
            that split.
        limit: Number of images, evenly spaced in the split, to evaluate and to fit the
            temperature on; the files are then named `eval-<split>-limit<N>`. None
            evaluates all.
        out: The folder to write to; None is the workdir.

    Returns:
        The contents of `eval-<split>.json`.

    Raises:
        OSError: If there is no such checkpoint, or `out` cannot be written.
        ValueError: If there is no such split, or it has no labels, or the checkpoint
            has another network, or no temperature can be fitted.
    """
    config_fields.check_fields(config)
    if limit is not None and limit < 1:
        raise ValueError(f"--limit={limit}: give a number of images of at least 1")
    out = Path(folder if out is None else out)
    whole = builders.load_split(config, split_name or config.data.val_split)
    split = evenly_spaced(whole, limit)
    if not has_labels(split):
        raise ValueError(
            f"{split.dataset} {split.name}: no pixel is labeled, so nothing can be "
            "scored; scripts/submit.py writes predictions for a server that has the "
            "labels"
        )
    restored = _restore(config, folder, split, checkpoint=checkpoint)
    if jax.process_index() == 0:
        eval_report.check_writable(out)
    mesh.check_same(
        {"checkpoint": restored.step, "images": len(split.examples)},
        remedy="use the same data on every host, and give --checkpoint=STEP if training"
        " goes on meanwhile",
    )
    score_split = functools.partial(
        score,
        restored.variables,
        segmenter=restored.segmenter,
        batch_size=config.eval_batch_size,
        num_workers=config.data.num_workers,
        settings=settings,
    )
    temperatures = {"one": 1.0, "t_g": restored.temperature_g}
    if fit:
        temperatures["fitted"] = _fit_temperature(config, score_split, limit=limit)
    with BoundaryIoU.in_threads(
        len(split.class_names), config.data.num_workers
    ) as boundaries:
        result = score_split(
            split,
            temperatures=temperatures,
            num_examples=PANELS,
            visit=lambda example: boundaries.add(example.label, example.prediction),
            progress=f"evaluating {split.name}",
        )
        iou_of_boundaries = boundary_iou(mesh.sum_over_processes(boundaries.sums()))
    report = {
        "checkpoint": restored.step,
        "selected": restored.selected,
        "split": split.name,
        "dataset": split.dataset,
    }
    if len(split.examples) < len(whole.examples):
        report["limit"] = {"images": limit, "of": len(whole.examples)}
    report["left_out"] = len(split.left_out)
    report["inference"] = dataclasses.asdict(settings)
    report["precision"] = config.precision
    report |= eval_report.numbers(result, split, iou_of_boundaries)
    if jax.process_index() == 0:
        eval_report.show(report, result, split, settings=settings)
        eval_report.save(report, result, split, out=out, workdir=Path(folder))
    return report


class _Restored(NamedTuple):
    """The segmenter of a checkpoint."""

    step: int
    selected: str  # how the checkpoint was chosen, in words
    segmenter: nn.Module
    variables: PyTree
    temperature_g: float  # T_G in L_seg at the end of training, not the config's


def _restore(
    config: ConfigDict, folder: str | Path, split: Split, *, checkpoint: StepOrName
) -> _Restored:
    with contextlib.closing(Checkpoints(folder)) as checkpoints:

        def read(step: int) -> _Restored:
            # The scores of other selections are not read: they may be damaged.
            miou = checkpoints.miou(step) if checkpoint == "best" else None
            selected = _selection(checkpoint, miou)
            segmenter, variables = builders.restore_segmenter(
                config, checkpoints, split, step=step, devices=mesh.global_mesh()
            )
            temperature_g = checkpoints.model(step)["temperature_g"]
            return _Restored(step, selected, segmenter, variables, temperature_g)

        return checkpoints.read(checkpoint, read)


def _selection(checkpoint: StepOrName, miou: float | None) -> str:
    """Say how a checkpoint was chosen, from its validation mIoU during training."""
    if checkpoint not in ("best", "latest"):
        return "as given"
    if checkpoint == "latest":
        return "the latest"
    if miou is None:
        return "the latest, because none has been evaluated during training"
    return f"the best of training, with a validation mIoU of {100 * miou:.2f}"


def _fit_temperature(
    config: ConfigDict, score_split: Callable[..., Result], *, limit: int | None
) -> float:
    """Return the temperature that minimizes the NLL on the validation split.

    Args:
        config: The config, which names the split.
        score_split: `score` with the network and the settings of inference.
        limit: Number of images, as in `evaluate`.

    Raises:
        ValueError: If no pixel is labeled, or the NLL is not finite.
    """
    grid = calibration.TEMPERATURE_GRID
    split = evenly_spaced(builders.load_split(config, config.data.val_split), limit)
    result = score_split(
        split,
        temperatures={str(t): t for t in grid},
        progress="fitting the temperature",
    )
    try:
        return calibration.fit_temperature(result.sums.tally, grid)
    except ValueError as error:
        raise ValueError(
            f"no temperature can be fitted on {split.dataset} {split.name}: {error}; "
            "--nofit_temperature evaluates without it"
        ) from None
