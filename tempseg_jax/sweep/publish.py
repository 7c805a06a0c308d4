"""A copy of a sweep to keep and to share: what a report reads, without checkpoints.

Further runs can be trained in the copy, because a sweep counts a run with a
`final.json` as finished.
"""

import shutil
from pathlib import Path

from tempseg_jax.io.atomic import replacing
from tempseg_jax.io.json_files import write_json
from tempseg_jax.sweep.scope import read_scope
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir import saved_config, train_images

_OF_SWEEP = ("sweep.json", "examples.npz")
_OF_RUN = (
    "metrics.jsonl",
    train_images.TRAIN,
    train_images.LABELED,
    train_images.UNLABELED,
)
_PREDICTIONS = "predictions.npz"
_LAST = "final.json"


def publish(sweep: Path, target: Path) -> int:
    """Copy the finished runs of a sweep; runs that are there already are kept.

    Configs are copied without folders of this machine. Predictions are copied for the
    first seed only: a report shows those of one seed.

    Returns:
        The number of runs that were copied.

    Raises:
        FileNotFoundError: If `sweep` is not the folder of a sweep.
        OSError: If a file cannot be written.
        ValueError: If a file of the sweep is damaged.
    """
    scope, _ = read_scope(sweep)
    runs = [x for x in scope.runs(saved_config.read_config(sweep)) if x.finished(sweep)]
    runs = [x for x in runs if not x.finished(target)]
    _copy_config(sweep, target)
    for name in _OF_SWEEP:
        _copy(sweep / name, target / name)
    for run in runs:
        _copy_run(run, sweep, target, with_predictions=run.seed == scope.first_seed)
    return len(runs)


def _copy_run(run: Run, sweep: Path, target: Path, *, with_predictions: bool) -> None:
    source, copy = run.folder(sweep), run.folder(target)
    _copy_config(source, copy)
    measurements = [x.name for x in source.glob("*.npz") if x.name != _PREDICTIONS]
    for name in (*_OF_RUN, *measurements, *with_predictions * (_PREDICTIONS,), _LAST):
        _copy(source / name, copy / name)


def _copy_config(source: Path, copy: Path) -> None:
    config = saved_config.without_folders(source)
    if config is not None:
        write_json(copy / "config.json", config)


def _copy(source: Path, copy: Path) -> None:
    """Copy a file; one that the run does not have is left out."""
    if source.exists():
        with replacing(copy) as partial:
            shutil.copyfile(source, partial)
