"""Orbax checkpoints: the latest and the best, each restorable in part."""

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

BEST_METRIC = "miou"
Step = int | str
"""A step, or `"latest"`, or `"best"`: the highest validation mIoU."""


_SEGMENTER_FIELDS = ("name", "num_classes", "width", "preprocessing")
"""Of `model`: what must agree for the segmenter's variables to mean the same."""


class Checkpoints:
    """The `checkpoints` folder of a workdir.

    A checkpoint is four items, so that the segmenter restores without the rest:
    `segmenter` and `discriminator` are their networks' variables, `training` is the
    step, optimizers and loss scales, and `model` says what the segmenter is.
    """

    def __init__(self, workdir: str | Path):
        """Open the folder, creating nothing before the first save."""
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
        """Save in the background; `metrics` (with `miou`) makes it eligible as best."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        items = {"segmenter": state.segmenter.variables, "training": _training(state)}
        if state.discriminator is not None:
            items["discriminator"] = state.discriminator.variables
        saves = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        saves["model"] = ocp.args.JsonSave(model)
        if metrics is None:  # ranks below every score; without any, Orbax warns
            metrics = {BEST_METRIC: math.nan}
        self._manager.save(step, args=ocp.args.Composite(**saves), metrics=metrics)

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def resolve(self, step: Step) -> int:
        """Return the step that a user's `latest`, `best` or number names.

        Raises:
            FileNotFoundError: there is no such checkpoint.
        """
        found = {
            "latest": self._manager.latest_step,
            "best": lambda: self._manager.best_step() or self._manager.latest_step(),
        }
        if step in found:
            number = found[step]()
        else:
            number = int(step) if str(step).isdigit() else None
        if number not in self.steps():
            have = ", ".join(map(str, self.steps())) or "none"
            raise FileNotFoundError(
                f"{self.folder}: no checkpoint {step!r} (there are: {have}); train "
                "with this workdir first, or name another"
            )
        return number

    def model(self, step: int) -> dict:
        """Return what `save` was told the segmenter is."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(model=ocp.args.JsonRestore())
        )
        return restored["model"]

    def trained_with(self, step: int) -> Preprocessing:
        """Return the preprocessing of training, whatever the config says by now."""
        return Preprocessing.restored(self.model(step)["preprocessing"])

    def restore(self, like: TrainState, model: dict, *, step: int) -> TrainState:
        """Return the whole state, placed as the arrays of `like` are.

        Loss scales are those of the checkpoint only if both it and `model` have them.

        Raises:
            ValueError: the checkpoint holds another network.
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
        asked = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**asked))
        state = _assemble(restored, like)
        if saved == wanted:
            return state
        placed = state.step.sharding
        return _with_loss_scales(
            state, lambda: jax.device_put(precision.loss_scale(wanted), placed)
        )

    def restore_segmenter(self, like: PyTree, model: dict, *, step: int) -> PyTree:
        """Return the segmenter's variables alone, placed as the arrays of `like` are.

        Raises:
            ValueError: the checkpoint holds another network.
        """
        self._check_same(model, step, _SEGMENTER_FIELDS)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        wanted = ocp.args.Composite(segmenter=ocp.args.StandardRestore(abstract))
        return self._manager.restore(step, args=wanted)["segmenter"]

    def wait(self) -> None:
        """Return once everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for what is being written; without it the last save may be lost."""
        self._manager.close()

    def _check_same(self, model: dict, step: int, fields: tuple[str, ...]) -> None:
        saved, wanted = self.model(step), json.loads(json.dumps(model))
        for field in fields:
            if saved[field] != wanted[field]:
                raise ValueError(
                    f"{self.folder}/{step}: the checkpoint's {field} is "
                    f"{saved[field]!r}, the config's is {wanted[field]!r}; use the "
                    "config it was trained with, or another --workdir"
                )


def _merit(metrics: dict[str, float]) -> float:
    """Order checkpoints; NaN, which is where val is all void, is below any score."""
    return -1.0 if math.isnan(metrics[BEST_METRIC]) else metrics[BEST_METRIC]


def _with_loss_scales(
    state: TrainState, make: Callable[[], DynamicScale | None]
) -> TrainState:
    """Give every player one of its own: the step donates each buffer once."""
    return jax.tree.map(
        lambda x: x.replace(loss_scale=make()) if isinstance(x, Player) else x,
        state,
        is_leaf=lambda x: isinstance(x, Player),
    )


def _abstract_loss_scale(numbers: str, *, like: TrainState) -> DynamicScale | None:
    """Return the shapes of a precision's loss scale, placed as the step of `like`."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=like.step.sharding),
        precision.loss_scale(numbers),
    )


def _training(state: TrainState) -> dict[str, PyTree]:
    players = {"segmenter": state.segmenter, "discriminator": state.discriminator}
    return {"step": state.step} | {
        name: {"opt_state": player.opt_state, "loss_scale": player.loss_scale}
        for name, player in players.items()
        if player is not None
    }


def _assemble(restored: ocp.args.Composite, like: TrainState) -> TrainState:
    def player(name: str) -> Player:
        variables, training = restored[name], restored["training"][name]
        return Player(**variables, **training)

    return TrainState(
        step=restored["training"]["step"],
        segmenter=player("segmenter"),
        discriminator=None if like.discriminator is None else player("discriminator"),
    )
