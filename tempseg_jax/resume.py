"""Restore the latest good checkpoint of a run, or build its initial state."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tempseg_jax import builders, mesh
from tempseg_jax.builders import initial_weights
from tempseg_jax.data.catalog import Split
from tempseg_jax.objective.losses import Objective
from tempseg_jax.train_state import TrainState
from tempseg_jax.workdir import checkpoint_folder, data_record, saved_config
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.checkpoint_folder import DamagedCheckpoint
from tempseg_jax.workdir.metrics_writer import read_metrics

Start = tuple[Objective, TrainState, dict[str, Any]]
"""The objective, the state and the description of the model."""

_ATTEMPTS, _PAUSE = 13, 5  # seconds: a minute, for which NFS may cache a folder


def check_networks(config: ConfigDict, folder: str | Path) -> None:
    """Check the networks' fields before the data are prepared, which can take long.

    `model.pretrained` is not checked if the workdir has a checkpoint.

    Raises:
        FileNotFoundError: If `model.pretrained` is a folder without a checkpoint.
        ValueError: If a network does not have what a field asks for, or
            `model.pretrained` is nothing that can be loaded, or of another network.
    """
    resumes = checkpoint_folder.steps(Path(folder) / "checkpoints")
    source = "" if resumes else config.model.pretrained
    objective = builders.build_objective(
        config,
        num_classes=2,  # the classes may not be known yet, and change no error
        preprocessing=initial_weights.preprocessing_of(source),
    )
    if source:
        shapes = builders.abstract_state(config, objective).segmenter.variables
        initial_weights.check_fits(shapes, config.model)


def first_state(
    config: ConfigDict,
    folder: str | Path,
    checkpoints: Checkpoints,
    *,
    split: Split,
    numbers: Mapping[str, int | str],
    steps: int,
    devices: Mesh,
    allow_change: bool,
    fallback: bool,
) -> Start:
    """Return the state of the latest checkpoint, or the initial state without any.

    The config and the numbers are then saved in the workdir.

    Args:
        config: The config of the run.
        folder: The workdir, whose lock this run holds.
        checkpoints: The checkpoints of the workdir.
        split: The training split.
        numbers: What must not change when the run is resumed, beside the config.
        steps: The last step of the run.
        devices: The mesh over which the state is replicated.
        allow_change: Whether the workdir may belong to another config or other data.
        fallback: Whether to go on from an older checkpoint if the latest is damaged.

    Raises:
        ValueError: If the workdir belongs to another config or other data, no
            checkpoint is good, the latest is of a step after the last one, or the
            processes of the run do not share the workdir.
    """
    resumes = bool(_agreed_steps(checkpoints))
    if resumes:
        if allow_change:
            saved_config.print_upgrade(folder)
        else:
            saved_config.check(folder, config)
        start = _newest_good(
            config, checkpoints, split, devices=devices, fallback=fallback
        )
        step = int(start[1].step)
        if step > steps:
            raise ValueError(
                f"{checkpoints.folder}: the run has trained {step} steps already, more "
                f"than the {steps} of this config; set config.steps to at least {step},"
                " or choose another --workdir"
            )
    else:
        _check_not_trained(config, folder, allow_change=allow_change)
        objective = builders.build_objective(config, num_classes=len(split.class_names))
        model = builders.describe_model(config, objective, split)
        state = builders.initial_state(config, objective, class_names=split.class_names)
        state = mesh.replicate(state, devices)
        start = objective, state, model
    # This comes last, so that a workdir that cannot be restored keeps its files.
    data_record.claim(folder, numbers, resumes=resumes, allow_change=allow_change)
    saved_config.claim(folder, config, allow_change=True)
    return start


def _agreed_steps(checkpoints: Checkpoints) -> list[int]:
    """Return the steps of the checkpoints after a check that all processes see them.

    A network file system may show a host for a while what a folder held before.

    Raises:
        ValueError: If the processes see different checkpoints.
    """
    for _ in range(_ATTEMPTS):
        steps = checkpoints.steps()
        if len(set(mesh.texts_of_processes(str(steps)))) == 1:
            return steps
        time.sleep(_PAUSE)
    mesh.check_same(
        {f"checkpoints in {checkpoints.folder}": checkpoints.steps()},
        remedy="give a --workdir on storage that all hosts share",
    )
    return checkpoints.steps()


def _check_not_trained(
    config: ConfigDict, folder: str | Path, *, allow_change: bool
) -> None:
    """Refuse to erase the log of another config's run, or that of a finished run.

    A run whose first checkpoint was not saved yet is started again.

    Raises:
        ValueError: If training would start in such a workdir.
    """
    if (Path(folder) / "final.json").exists():
        raise ValueError(
            f"{folder}: is a finished run of a sweep, whose checkpoints are deleted; "
            "choose another --workdir"
        )
    logged = any(line["step"] > 0 for line in read_metrics(folder))
    if logged and not allow_change:
        saved_config.check(
            folder,
            config,
            remedy="it has a log and no checkpoints; choose another --workdir, or "
            "pass --allow_config_change to start again and erase its log",
        )


def recover_scores(checkpoints: Checkpoints, folder: str | Path, *, step: int) -> bool:
    """Return whether a checkpoint has its scores, if need be after adding them.

    A run that was killed after its evaluation was logged and before its scores were
    added to the checkpoint has them in its log.

    Raises:
        OSError: If the scores cannot be written.
        ValueError: If a line of the log is damaged.
    """
    path = checkpoints.folder / str(step) / checkpoint_folder.SCORES
    try:
        scored = checkpoints.miou(step) is not None
    except DamagedCheckpoint as error:
        scored = False
        logging.warning("%s; they are written again", error.reason)
    if scored:
        return True
    if jax.process_index() == 0:
        path.unlink(missing_ok=True)
    for line in read_metrics(folder):
        if line["step"] == step and "val/miou" in line:
            value = line["val/miou"]
            miou = float("nan") if value is None else value
            checkpoints.add_scores(step, {"miou": miou})
            return True
    return False


def _newest_good(
    config: ConfigDict,
    checkpoints: Checkpoints,
    split: Split,
    *,
    devices: Mesh,
    fallback: bool,
) -> Start:
    """Restore the newest checkpoint that is not damaged; rename those that are.

    It is damaged if it is for one process: all of them must go on from the same.
    """
    damaged: list[DamagedCheckpoint] = []
    for step in reversed(checkpoints.steps()):
        try:
            start = _restore_in_all(
                config, checkpoints, split, step=step, devices=devices
            )
        except DamagedCheckpoint as error:
            if not fallback:
                raise ValueError(
                    f"{error.folder}: the checkpoint is damaged ({error.reason}); start"
                    " with --checkpoint_fallback, which renames it and goes on from an "
                    "older one"
                ) from error
            damaged.append(error)
            continue
        # Only now, so that nothing is renamed if another cause damages all of them.
        for error in damaged:
            new = error.folder
            if jax.process_index() == 0:
                new = checkpoint_folder.set_aside(error.folder)
            logging.warning(
                "%s: the checkpoint is damaged (%s); it was renamed to %s, and training"
                " goes on from step %d",
                error.folder,
                error.reason,
                new.name,
                step,
            )
        return start
    raise ValueError(
        f"{checkpoints.folder}: every checkpoint is damaged (step {damaged[0].step}: "
        f"{damaged[0].reason}); restore them from a copy, or rename this folder to "
        "train from the beginning"
    ) from damaged[0]


def _restore_in_all(
    config: ConfigDict,
    checkpoints: Checkpoints,
    split: Split,
    *,
    step: int,
    devices: Mesh,
) -> Start:
    """Restore a checkpoint.

    Raises:
        DamagedCheckpoint: In every process, if it is damaged for one of them.
    """
    damage = None
    try:
        start = builders.restore_state(
            config, checkpoints, split, step=step, devices=devices
        )
    except DamagedCheckpoint as error:
        damage = error
    reasons = mesh.texts_of_processes("" if damage is None else damage.reason)
    if damage is not None:
        raise damage
    for number, reason in enumerate(reasons):
        if reason:
            folder = checkpoints.folder / str(step)
            raise DamagedCheckpoint(folder, f"for process {number}: {reason}")
    return start
