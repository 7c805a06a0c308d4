"""Train one experiment: `--mode=train`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tempseg_jax import builders, loop, mesh, resume
from tempseg_jax.builders import config_fields
from tempseg_jax.builders.plan import Plan, micro_batch_size, unlabeled_batch_size
from tempseg_jax.builders.run_data import RunData
from tempseg_jax.callbacks import RunCallbacks
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import tensorboard
from tempseg_jax.inference import published, restore
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.io import atomic
from tempseg_jax.jitted_step import jitted_step
from tempseg_jax.train_state import TrainState
from tempseg_jax.types import Batch
from tempseg_jax.workdir import (
    checkpoint_folder,
    data_record,
    digests,
    log_digest,
    saved_config,
    wandb_run,
)
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.lock import NoLock, WorkdirLock, training_lock
from tempseg_jax.workdir.metrics_writer import Silent, Writer

_SAME = (
    "start the same command with the same data on every host, and with a --workdir on "
    "storage that all of them share"
)
"""What to do if the processes of a run do not agree."""


def train(
    config: ConfigDict,
    folder: str | Path,
    *,
    allow_change: bool,
    fallback: bool = True,
) -> bool:
    """Train a new run, or resume from the latest checkpoint in the workdir.

    Args:
        config: The config of the run.
        folder: The workdir.
        allow_change: Whether to resume although the workdir was started with another
            config.
        fallback: Whether to resume from an older checkpoint if the latest is damaged,
            which is then renamed.

    Returns:
        True if training was interrupted by SIGTERM or Ctrl-C; the state is saved and
        training can be resumed.

    Raises:
        ValueError, OSError: If the config, the data or the workdir cannot be used,
            or are not the same in all processes, or another training runs in the
            workdir.
        Diverged: If a loss or a parameter is not finite.
    """
    _check_start(config, folder)
    mesh.check_same(saved_config.common_to_hosts(config), remedy=_SAME)
    data = builders.load_run_data(config)
    plan = Plan.of(config, images=len(data.train.examples))
    devices = mesh.data_mesh(
        batch_size=micro_batch_size(config),
        unlabeled_batch_size=unlabeled_batch_size(config),
    )
    hyper = builders.hyperparameters(
        config, plan, class_weights=builders.load_class_weights(config, data.labeled)
    )
    teacher = _load_teacher(config, data.labeled)
    numbers = data.numbers() | {"steps": plan.steps}
    if teacher is not None:
        weights = digests.of_json(digests.of_arrays(teacher.variables))[:12]
        numbers |= {"teacher_step": teacher.step, "teacher_weights": weights}
    mesh.check_same(numbers, remedy=_SAME)
    with _locked(folder) as lock:
        checkpoints = Checkpoints(folder)
        objective, state, model = resume.first_state(
            config,
            folder,
            checkpoints,
            split=data.labeled,
            numbers=numbers,
            steps=plan.steps,
            devices=devices,
            allow_change=allow_change,
            fallback=fallback,
        )
        if teacher is not None:
            objective, hyper = builders.with_teacher(
                config,
                objective,
                hyper,
                teacher=teacher.segmenter,
                variables=teacher.variables,
            )
            teacher = None  # its variables are replicated now
        hyper = mesh.replicate(hyper, devices)
        start_step = int(state.step)
        if not jax.process_index():
            data.write_lists(config, folder)
        evaluate_first = plan.evaluates_after(start_step) and (
            not resume.recover_scores(checkpoints, folder, step=start_step)
        )
        mesh.check_same(
            {"first step": start_step + 1, "evaluates first": evaluate_first},
            remedy=_SAME,
        )
        with (
            _writer(config, folder, start_step, last_step=plan.steps) as writer,
            _closing(checkpoints),
        ):
            writer.message(
                f"{'Resuming' if start_step else 'Starting'} at step {start_step} of "
                f"{plan.steps}: {data.counted()}, "
                f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
            )
            if gaps := data.gaps(config):
                writer.message("\n".join(gaps))
            run = RunCallbacks(
                config,
                plan,
                jitted_step=jitted_step(objective, micro_batches=config.accumulate),
                hyper=hyper,
                objective=objective,
                model=model,
                val_split=data.val,
                shares=tensorboard.ClassShares(data.labeled.class_names),
                folder=folder,
                writer=writer,
                checkpoints=checkpoints,
                lock=lock,
            )
            state, interrupted = _take_steps(
                state, run, data, devices=devices, evaluate_first=evaluate_first
            )
            checkpoints.wait()
            lock.check()
            if int(state.step) < plan.steps:
                writer.message(
                    f"Stopped after step {int(state.step)} of {plan.steps}; the state "
                    "is saved, and the same command resumes from it"
                )
    return interrupted


def _check_start(config: ConfigDict, folder: str | Path) -> None:
    """Check what needs no data, whose preparation can take long."""
    config_fields.check_fields(config)
    if (Path(folder) / "sweep.json").exists():
        raise ValueError(
            f"{folder}: is the folder of a sweep, whose runs scripts/sweep.py trains; "
            "choose another --workdir"
        )
    teacher = config.distill.teacher
    if teacher and not teacher.startswith(saved_config.HUB):
        path = Path(teacher).expanduser()
        if not (
            published.is_published(path)
            or checkpoint_folder.steps(path / "checkpoints")
        ):
            raise FileNotFoundError(
                f"distill.teacher: {teacher} has no checkpoint; train it first, or "
                "give the workdir of a trained run"
            )
    if config.writer.wandb:
        wandb_run.check_installed()
    resume.check_networks(config, folder)


def _take_steps(
    state: TrainState,
    run: RunCallbacks,
    data: RunData,
    *,
    devices: Mesh,
    evaluate_first: bool,
) -> tuple[TrainState, bool]:
    """Train until the plan's last step or a signal, which `loop.train` returns.

    Args:
        state: The state to go on from.
        run: The config, the plan, the step and the callbacks.
        data: The images.
        devices: The mesh that batches are split over.
        evaluate_first: Whether the run was killed while `state` was evaluated.
    """

    def place(batch: Batch) -> Batch:
        run.shares.add(batch["label"])
        return mesh.split_batch(batch, mesh=devices)

    start_step = int(state.step)
    batches = builders.training_batches(
        run.config,
        data.labeled,
        data.labeled_tiles,
        data.unlabeled,
        # An evaluation needs the batch of the last step too, which is read again.
        start_step=start_step - 1 if evaluate_first else start_step,
    )
    if evaluate_first:
        run.last_batch = place(next(batches))
        run.evaluate(state)
    return loop.train(
        state,
        batches,
        step=run.train_step,
        place=place,
        start_step=start_step,
        last_step=run.plan.steps,
        callbacks=run.callbacks(),
    )


def _load_teacher(config: ConfigDict, split: Split) -> Predictor | None:
    """Return the best checkpoint of the teacher's run, in the precision of that run.

    Raises:
        FileNotFoundError: If the workdir has no checkpoint.
        ValueError: If its classes are not those of the split.
    """
    if not config.distill.teacher:
        return None
    teacher = restore.load(config.distill.teacher)
    if teacher.class_names != tuple(split.class_names):
        raise ValueError(
            f"distill.teacher: {config.distill.teacher} was trained for the classes "
            f"{', '.join(teacher.class_names)}, and {split.dataset} has "
            f"{', '.join(split.class_names)}; give a run with the same classes"
        )
    return teacher


@contextlib.contextmanager
def _locked(folder: str | Path) -> Iterator[WorkdirLock | NoLock]:
    """Hold the workdir's lock in the first process, and delete what a kill left.

    The other processes wait for it, and all of them raise its error.
    """
    with contextlib.ExitStack() as stack:
        lock: WorkdirLock | NoLock = NoLock()
        refusal: OSError | None = None
        if not jax.process_index():
            try:
                lock = stack.enter_context(training_lock(folder))
            except OSError as error:
                refusal = error
            else:
                _delete_leftovers(Path(folder))
        message = mesh.texts_of_processes(str(refusal or ""))[0]
        if message:
            raise refusal or OSError(message)
        yield lock


def _delete_leftovers(folder: Path) -> None:
    """Delete unfinished files of a killed training; only the lock's holder may."""
    checkpoint_folder.clean(folder.absolute() / "checkpoints")
    files = ("config.json", data_record.NAME, "metrics.jsonl", log_digest.NAME)
    for name in (*files, "curves.png"):
        atomic.delete_leftovers(folder / name)


@contextlib.contextmanager
def _closing(checkpoints: Checkpoints) -> Iterator[None]:
    """Close at the end; after an error, a save that fails too does not replace it."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            checkpoints.close()
        raise
    checkpoints.close()


def _writer(
    config: ConfigDict, folder: str | Path, start_step: int, *, last_step: int
) -> Writer | Silent:
    """Return the writer of the first process, and a silent one for all others."""
    if jax.process_index():
        return Silent()
    return Writer(
        folder,
        start_step=start_step,
        last_step=last_step,
        wandb_config=config.to_dict() if config.writer.wandb else None,
    )
