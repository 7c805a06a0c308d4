"""Orbax checkpoints: the latest and the best; the segmenter restores on its own."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from flax.training.dynamic_scale import DynamicScale
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers as policies

from tempseg_jax import precision
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.train_state import Player, TrainState
from tempseg_jax.workdir import formats

BEST_METRIC = "miou"
"""The validation metric of which the highest value makes a checkpoint the best."""

Step = int | str
"""A step, or `"latest"`, or `"best"`: the highest validation mIoU."""

_SEGMENTER_FIELDS = ("name", "num_classes", "width", "preprocessing")
"""Fields of `model` that must agree before the segmenter's variables are restored."""


class Checkpoints:
    """The `checkpoints` folder of a workdir.

    A checkpoint has four items, so that the segmenter restores without the rest:
    `segmenter` and `discriminator` are their networks' variables, `training` is the
    step, optimizer states and loss scales, and `model` describes the segmenter in
    JSON, with a format number (formats.py).
    """

    def __init__(self, workdir: str | Path):
        """Open the folder; nothing is created before the first save."""
        self.folder = Path(workdir).absolute() / "checkpoints"
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(1),
                policies.BestN(
                    get_metric_fn=_merit,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_names=("segmenter", "discriminator", "training", "model"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep,
                best_fn=_merit,
                create=False,
            ),
        )

    def save(
        self, state: TrainState, model: dict, *, metrics: dict[str, float] | None
    ) -> None:
        """Save in the background; a step that is already saved is left as it is.

        Args:
            state: The state after the step that it names.
            model: The description by `builders.describe_model`.
            metrics: Validation scores with `miou`, by which the best checkpoint is
                chosen; None if the state was not evaluated.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        items = {"segmenter": state.segmenter.variables, "training": _training(state)}
        if state.discriminator is not None:
            items["discriminator"] = state.discriminator.variables
        saves = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        saves["model"] = ocp.args.JsonSave({"format": formats.FORMAT} | model)
        if metrics is None:  # NaN ranks below every score; without metrics Orbax warns
            metrics = {BEST_METRIC: math.nan}
        self._manager.save(step, args=ocp.args.Composite(**saves), metrics=metrics)

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, in ascending order."""
        return sorted(self._manager.all_steps())

    def resolve(self, step: Step) -> int:
        """Return the step number for `latest`, `best` or a number.

        `best` is the latest if no checkpoint was evaluated.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
        """
        by_name = {
            "latest": self._manager.latest_step,
            "best": lambda: self._manager.best_step() or self._manager.latest_step(),
        }
        if step in by_name:
            number = by_name[step]()
        else:
            number = int(step) if str(step).isdigit() else None
        if number not in self.steps():
            available = ", ".join(map(str, self.steps())) or "none"
            raise FileNotFoundError(
                f"{self.folder}: no checkpoint {step!r} (available: {available}); "
                "train with this workdir first, or name another checkpoint"
            )
        return number

    def model(self, step: int) -> dict:
        """Return the saved description of the segmenter, in this version's format.

        Raises:
            ValueError: If a newer version saved the checkpoint.
        """
        restored = self._manager.restore(
            step, args=ocp.args.Composite(model=ocp.args.JsonRestore())
        )
        where = f"{self.folder}/{step}/model"
        return formats.complete(
            restored["model"], formats.MODEL_UPGRADES, where=where
        ).fields

    def trained_with(self, step: int) -> Preprocessing:
        """Return the preprocessing of training, which may not be the config's."""
        return Preprocessing.restored(self.model(step)["preprocessing"])

    def restore(self, like: TrainState, model: dict, *, step: int) -> TrainState:
        """Return the whole state, sharded as the arrays of `like` are.

        If the precision of `model` is not that of the checkpoint, the loss scales are
        those that training in the new precision starts with.

        Raises:
            ValueError: If the checkpoint is of another network than `model` describes.
        """
        self._check_same(model, step, (*_SEGMENTER_FIELDS, "discriminator"))
        saved, wanted = self.model(step)["precision"], model["precision"]
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        abstract = _with_loss_scales(
            abstract, lambda: _abstract_loss_scale(saved, like=like)
        )
        items = {
            "segmenter": abstract.segmenter.variables,
            "training": _training(abstract),
        }
        if like.discriminator is not None:
            items["discriminator"] = abstract.discriminator.variables
        requests = {
            name: ocp.args.StandardRestore(item) for name, item in items.items()
        }
        restored = self._manager.restore(step, args=ocp.args.Composite(**requests))
        state = _assemble(restored, like)
        if saved == wanted:
            return state
        sharding = state.step.sharding
        return _with_loss_scales(
            state, lambda: jax.device_put(precision.loss_scale(wanted), sharding)
        )

    def restore_segmenter(self, like: PyTree, model: dict, *, step: int) -> PyTree:
        """Return the segmenter's variables only, sharded as the arrays of `like` are.

        Raises:
            ValueError: If the checkpoint is of another network than `model` describes.
        """
        self._check_same(model, step, _SEGMENTER_FIELDS)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        request = ocp.args.Composite(segmenter=ocp.args.StandardRestore(abstract))
        return self._manager.restore(step, args=request)["segmenter"]

    def wait(self) -> None:
        """Wait until every save is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the last save, which is lost if the process ends without this."""
        self._manager.close()

    def _check_same(self, model: dict, step: int, fields: tuple[str, ...]) -> None:
        saved, wanted = self.model(step), json.loads(json.dumps(model))
        for field in fields:
            if saved[field] != wanted[field]:
                raise ValueError(
                    f"{self.folder}/{step}: {field} is {saved[field]!r} in the "
                    f"checkpoint and {wanted[field]!r} in the config; use the config "
                    "of the training run, or another --workdir"
                )


def _merit(metrics: dict[str, float]) -> float:
    """Rank checkpoints; NaN (not evaluated, or every pixel is void) is the lowest."""
    return -1.0 if math.isnan(metrics[BEST_METRIC]) else metrics[BEST_METRIC]


def _with_loss_scales(
    state: TrainState, make: Callable[[], DynamicScale | None]
) -> TrainState:
    """Give each player its own loss scale: the step donates every buffer only once."""
    return jax.tree.map(
        lambda x: x.replace(loss_scale=make()) if isinstance(x, Player) else x,
        state,
        is_leaf=lambda x: isinstance(x, Player),
    )


def _abstract_loss_scale(
    precision_name: str, *, like: TrainState
) -> DynamicScale | None:
    """Return the shapes of a precision's loss scale, sharded as the step of `like`."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=like.step.sharding),
        precision.loss_scale(precision_name),
    )


def _training(state: TrainState) -> dict[str, PyTree]:
    """Return the content of the item `training`."""
    players = {"segmenter": state.segmenter, "discriminator": state.discriminator}
    return {"step": state.step} | {
        name: {"opt_state": player.opt_state, "loss_scale": player.loss_scale}
        for name, player in players.items()
        if player is not None
    }


def _assemble(restored: ocp.args.Composite, like: TrainState) -> TrainState:
    """Build a state from the restored items."""

    def player(name: str) -> Player:
        variables, training = restored[name], restored["training"][name]
        return Player(**variables, **training)

    return TrainState(
        step=restored["training"]["step"],
        segmenter=player("segmenter"),
        discriminator=None if like.discriminator is None else player("discriminator"),
    )
