"""Copies of a sweep to keep and to share: what a report reads, without checkpoints.

Further runs can be trained in the copy, because a sweep counts a run with a
`final.json` as finished.
"""

import gzip
import json
import shutil
from pathlib import Path

from ml_collections import ConfigDict

from tempseg_jax.io.atomic import replacing
from tempseg_jax.io.json_files import write_json
from tempseg_jax.sweep.scope import merge, read_scope
from tempseg_jax.sweep.store import Run, copy_pictures
from tempseg_jax.workdir import saved_config, train_images
from tempseg_jax.workdir.metrics_writer import read_metrics

EXAMPLES = 4
"""Number of validation images of a copy: as many as a report shows."""

_DIGITS = 6
"""Significant digits of the metrics of a copy, which halves their compressed size."""
_PREDICTIONS = "predictions.npz"
_LAST = "final.json"


def copy_sweep(sweep: Path, target: Path) -> int:
    """Copy the finished runs of a sweep; runs that are there already are kept.

    Configs are copied without folders of this machine, and metrics.jsonl as
    metrics.jsonl.gz with six digits of each number. Of the validation images,
    `EXAMPLES` evenly spaced ones are copied, and predictions of them for the first seed
    only: a report shows a few of one seed.

    Returns:
        The number of runs that were copied.

    Raises:
        FileNotFoundError: If `sweep` is not the folder of a sweep.
        OSError: If a file cannot be written.
        ValueError: If a file of the sweep is damaged, or `target` is `sweep` itself or
            holds runs of another config, scope or dataset.
    """
    scope, about = read_scope(sweep)
    _check_target(sweep, target)
    runs = [x for x in scope.runs(saved_config.read_config(sweep)) if x.finished(sweep)]
    runs = [x for x in runs if not x.finished(target)]
    merge(target, scope, about)
    _copy_config(sweep, target)
    _copy_pictures(sweep / "examples.npz", target / "examples.npz")
    for run in runs:
        _copy_run(run, sweep, target, with_predictions=run.seed == scope.first_seed)
    return len(runs)


def _check_target(sweep: Path, target: Path) -> None:
    if target.resolve() == sweep.resolve():
        raise ValueError(
            f"{target}: this is the sweep itself; choose another folder for the copy"
        )
    if (target / "config.json").exists():
        shared = saved_config.without_folders(sweep)
        del shared["format"]
        saved = saved_config.read_config(target)
        differences = saved_config.differences(saved, ConfigDict(shared))
        if differences:
            raise ValueError(
                f"{target}: it has runs of another config ({'; '.join(differences)}); "
                "choose another folder for the copy"
            )


def _copy_run(run: Run, sweep: Path, target: Path, *, with_predictions: bool) -> None:
    source, copy = run.folder(sweep), run.folder(target)
    _copy_config(source, copy)
    final = run.final(sweep) or {}
    measurements = [f"{split}.npz" for split in final.get("splits", ())]
    if with_predictions:
        _copy_pictures(source / _PREDICTIONS, copy / _PREDICTIONS)
    _copy_metrics(source, copy)
    for name in (*train_images.NAMES, *measurements, _LAST):
        _copy(source / name, copy / name)


def _copy_metrics(source: Path, copy: Path) -> None:
    """Compress metrics.jsonl, with `_DIGITS` digits of each number but the step."""
    lines = [
        {
            name: float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
            for name, value in line.items()
        }
        for line in read_metrics(source)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with replacing(copy / "metrics.jsonl.gz") as partial:
        partial.write_bytes(gzip.compress(text.encode(), mtime=0))
    (copy / "metrics.jsonl").unlink(missing_ok=True)  # of a run begun in the copy


def _copy_config(source: Path, copy: Path) -> None:
    config = saved_config.without_folders(source)
    if config is not None:
        write_json(copy / "config.json", config)


def _copy(source: Path, copy: Path) -> None:
    """Copy a file; one that the run does not have is left out."""
    if source.exists():
        with replacing(copy) as partial:
            shutil.copyfile(source, partial)


def _copy_pictures(source: Path, copy: Path) -> None:
    if source.exists():
        copy_pictures(source, copy, count=EXAMPLES)
