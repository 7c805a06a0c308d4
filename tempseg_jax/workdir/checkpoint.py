"""Checkpoints by Orbax, verified by digests: the latest two and the best are kept."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from tempseg_jax import precision
from tempseg_jax.io import machine_errors
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.train_state import TrainState
from tempseg_jax.workdir import (
    checkpoint_folder,
    checkpoint_items,
    digests,
    formats,
)
from tempseg_jax.workdir.checkpoint_folder import DamagedCheckpoint

StepOrName = int | str
"""A step, or `"latest"`, or `"best"`: the highest validation mIoU."""

Result = TypeVar("Result")

_SEGMENTER_FIELDS = (
    "name",
    "head",
    "output_stride",
    "auxiliary",
    "num_classes",
    "width",
    "preprocessing",
)
"""Fields of `model` that must agree before the segmenter's variables are restored."""

_INFERENCE_FIELDS = (*_SEGMENTER_FIELDS, "drop_connect", "class_names")
"""These and the fields that change what its predictions are, or what they mean."""

_ITEMS = ("segmenter", "discriminator", "training", "model", "digests")

_RETRIES, _PAUSE = 4, 0.5  # seconds


class Checkpoints:
    """The `checkpoints` folder of a workdir.

    A checkpoint has five items, so that the segmenter restores without the rest:
    `segmenter` and `discriminator` are their networks' variables, `training` is the
    step, optimizer states and loss scales, `model` describes the segmenter in JSON,
    with a format number (formats.py), and `digests` has those of all others. What
    version 0.1 saved has no digests, and is only checked to be finite.
    """

    def __init__(self, workdir: str | Path):
        """Open the folder; nothing is created before the first save."""
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._saver = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(*_ITEMS))
        # Each process reads by itself: if it waited for the others, they would wait
        # forever for one that finds damage.
        alone = jax.process_index()
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(*_ITEMS),
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=alone, active_processes={alone}
            ),
        )
        self._saving: int | None = None  # the step of an unfinished save

    def save(self, state: TrainState, model: dict) -> None:
        """Save in the background; a step that is already saved is left as it is.

        Args:
            state: The state after the step that it names.
            model: The description by `builders.describe_model`.

        Raises:
            OSError: If this save cannot start, or the one before it failed.
        """
        self.wait()
        step = int(state.step)
        if step in self.steps():
            return
        items = {
            "segmenter": state.segmenter.variables,
            "training": checkpoint_items.training(state),
        }
        if state.discriminator is not None:
            items["discriminator"] = state.discriminator.variables
        described = {"format": formats.FORMAT} | model
        of_items = {name: digests.of_arrays(item) for name, item in items.items()}
        of_items["model"] = digests.of_json(described)
        saves = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        saves["model"] = ocp.args.JsonSave(described)
        saves["digests"] = ocp.args.JsonSave(of_items)
        with self._disk(step):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._saver.save(self._path(step), args=ocp.args.Composite(**saves))
        self._saving = step

    def add_scores(self, step: int, scores: dict[str, float]) -> None:
        """Add validation scores with `miou`, which choose the best, to a checkpoint.

        Raises:
            OSError: If they cannot be written, or the save failed.
        """
        self.wait()
        if jax.process_index() == 0:
            try:
                checkpoint_folder.write_scores(self._path(step), scores)
            except OSError as error:
                raise OSError(
                    f"{self._path(step)}: its validation scores could not be written "
                    f"({error}); free some space or repair the disk, and start the "
                    "same command again, which resumes from this checkpoint"
                ) from error
            self._delete_others()

    def miou(self, step: int) -> float | None:
        """Return the validation mIoU that training measured; None if not evaluated.

        Raises:
            DamagedCheckpoint: If it cannot be read.
        """
        return checkpoint_folder.miou(self._path(step))

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints, in ascending order."""
        return checkpoint_folder.steps(self.folder)

    def resolve(self, which: StepOrName) -> int:
        """Return the step number for `latest`, `best` or a number.

        `best` is the latest if no checkpoint was evaluated.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            DamagedCheckpoint: If scores cannot be read that are needed for the best.
        """
        available = self.steps()
        number = int(which) if str(which).isdigit() else None
        if which in ("latest", "best") and available:
            number = available[-1]
        if which == "best" and available:
            best = checkpoint_folder.best(self.folder)
            number = number if best is None else best
        if number not in available:
            remedy = "give best, latest or one of these steps"
            raise FileNotFoundError(
                f"{self.folder}: no checkpoint {which!r} (available: "
                f"{', '.join(map(str, available)) or 'none'}); "
                f"{remedy if available else 'train with this workdir first'}"
            )
        return number

    def read(self, which: StepOrName, read: Callable[[int], Result]) -> Result:
        """Call `read` with the step number; again, if training deletes it meanwhile.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            DamagedCheckpoint: If it cannot be read, and is not being deleted.
        """
        for attempt in range(_RETRIES):
            number = self.resolve(which)
            try:
                return read(number)
            except DamagedCheckpoint:
                if self._path(number).exists() and self.resolve(which) == number:
                    raise
                if attempt == _RETRIES - 1:
                    raise
                time.sleep(_PAUSE)
        raise AssertionError  # the last attempt returns or raises

    def model(self, step: int) -> dict:
        """Return the saved description of the segmenter, in this version's format.

        Raises:
            ValueError: If a newer version saved the checkpoint.
            DamagedCheckpoint: If it cannot be read, or is not what was saved.
        """
        content = self._restore(step, model=ocp.args.JsonRestore())["model"]
        expected = self._digests(step).get("model")
        if expected not in (None, digests.of_json(content)):
            raise DamagedCheckpoint(self._path(step), "model is not what was saved")
        where = f"{self.folder}/{step}/model"
        return formats.complete(content, formats.MODEL_UPGRADES, where=where).fields

    def training_preprocessing(self, step: int) -> Preprocessing:
        """Return the preprocessing of training, which may not be the config's."""
        model = self.model(step)
        with self._damage(step):
            return Preprocessing.restored(model["preprocessing"])

    def restore(self, like: TrainState, model: dict, *, step: int) -> TrainState:
        """Return the whole state, sharded as the arrays of `like` are.

        If the precision of `model` is not that of the checkpoint, the loss scales are
        those that training in the new precision starts with.

        Raises:
            ValueError: If the checkpoint is of another network than `model` describes.
            DamagedCheckpoint: If it cannot be read, or is not what was saved.
        """
        self._check_same(model, step, (*_SEGMENTER_FIELDS, "discriminator"))
        saved, wanted = self.model(step)["precision"], model["precision"]
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        abstract = checkpoint_items.with_loss_scales(
            abstract, lambda: checkpoint_items.abstract_loss_scale(saved, like=like)
        )
        items = {
            "segmenter": abstract.segmenter.variables,
            "training": checkpoint_items.training(abstract),
        }
        if like.discriminator is not None:
            items["discriminator"] = abstract.discriminator.variables
        state = checkpoint_items.assemble(self._restore_arrays(step, items), like)
        if int(state.step) != step:
            raise DamagedCheckpoint(
                self._path(step), f"it holds the state after step {int(state.step)}"
            )
        if saved == wanted:
            return state
        sharding = state.step.sharding
        # Not device_put, which waits for the other processes to compare the values.
        return checkpoint_items.with_loss_scales(
            state,
            lambda: jax.tree.map(
                lambda x: jax.make_array_from_process_local_data(
                    sharding, np.asarray(x)
                ),
                precision.loss_scale(wanted),
            ),
        )

    def restore_segmenter(self, like: PyTree, model: dict, *, step: int) -> PyTree:
        """Return the segmenter's variables only, sharded as the arrays of `like` are.

        Raises:
            ValueError: If the checkpoint is of another network than `model` describes.
            DamagedCheckpoint: If it cannot be read, or is not what was saved.
        """
        self._check_same(model, step, _INFERENCE_FIELDS)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._restore_arrays(step, {"segmenter": abstract})["segmenter"]

    def check(self) -> None:
        """Check that a save in the background has not failed; do not wait for it.

        Raises:
            OSError: If it failed.
        """
        if self._saving is not None:
            with self._disk(self._saving):
                self._saver.check_for_errors()

    def wait(self) -> None:
        """Wait until every save is on disk; delete those that are not kept.

        Raises:
            OSError: If a save failed.
        """
        if self._saving is None:
            return
        step, self._saving = self._saving, None
        with self._disk(step):
            self._saver.wait_until_finished()
            if jax.process_index() == 0:
                checkpoint_folder.sync(self._path(step))
                self._delete_others()

    def close(self) -> None:
        """Wait for the last save, which is lost if the process ends without this.

        Raises:
            OSError: If it failed.
        """
        try:
            self.wait()
        finally:
            self._saver.close()
            self._reader.close()

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

    def _delete_others(self) -> None:
        kept = checkpoint_folder.kept(self.folder)
        for step in self.steps():
            if step not in kept:
                checkpoint_folder.delete(self._path(step))

    def _digests(self, step: int) -> dict[str, Any]:
        """Return the digests by item; {} if the version that saved it had none."""
        if not (self._path(step) / "digests").exists():
            return {}
        return self._restore(step, digests=ocp.args.JsonRestore())["digests"]

    def _restore(self, step: int, **items: Any) -> Any:
        with self._damage(step):
            return self._reader.restore(
                self._path(step), args=ocp.args.Composite(**items)
            )

    def _restore_arrays(self, step: int, items: dict[str, PyTree]) -> Any:
        requests = {name: ocp.args.StandardRestore(x) for name, x in items.items()}
        restored, expected = self._restore(step, **requests), self._digests(step)
        for name in items:
            with self._damage(step):
                wrong = digests.difference(restored[name], expected.get(name))
            if wrong:
                raise DamagedCheckpoint(self._path(step), f"{name}{wrong}")
        return restored

    @contextmanager
    def _damage(self, step: int) -> Iterator[None]:
        """Replace any error of reading; Orbax raises many types for damaged files."""
        try:
            yield
        except DamagedCheckpoint:
            raise
        except jax.errors.JaxRuntimeError:  # the device is out of memory
            raise
        except Exception as error:
            machine_errors.reraise(error, path=self._path(step))
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise DamagedCheckpoint(self._path(step), reason) from error

    @contextmanager
    def _disk(self, step: int) -> Iterator[None]:
        """Replace any error of saving by one that says what is left and what to do."""
        try:
            yield
        except Exception as error:
            self._saving = None
            good = [x for x in self.steps() if x != step]
            reason = " ".join(f"{error or type(error).__name__}".split())[:160]
            raise OSError(
                f"{self._path(step)}: the checkpoint could not be saved ({reason}); "
                f"the last good one is {'step ' + str(good[-1]) if good else 'none'}; "
                "free some space or repair the disk, and start the same command again, "
                "which resumes from it"
            ) from error

    def _check_same(self, model: dict, step: int, fields: tuple[str, ...]) -> None:
        saved, wanted = self.model(step), json.loads(json.dumps(model))
        for field in fields:
            if saved.get(field) != wanted[field]:
                raise ValueError(
                    f"{self.folder}/{step}: {field} is {saved.get(field)!r} in the "
                    f"checkpoint and {wanted[field]!r} in the config; use the config "
                    "of the training run, or another --workdir"
                )
