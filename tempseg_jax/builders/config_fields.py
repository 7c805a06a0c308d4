"""Allowed values of the config's fields, checked before anything is built or read."""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from tempseg_jax.builders.field_combinations import check_combinations
from tempseg_jax.builders.schedules import TEMPERATURE_SCHEDULES
from tempseg_jax.data import catalog, problem_files
from tempseg_jax.data.class_pixels import CLASS_WEIGHTS
from tempseg_jax.models import DISCRIMINATORS, SEGMENTERS
from tempseg_jax.models.frozen_batch_norm import FREEZE_BATCH_NORM
from tempseg_jax.models.heads import HEADS
from tempseg_jax.objective.adversaries import ADVERSARIES
from tempseg_jax.objective.losses import REAL_MAPS
from tempseg_jax.optim import DISCRIMINATOR_OPTIMIZERS
from tempseg_jax.precision import COMPUTE_DTYPES


class Range(NamedTuple):
    """Finite numbers from a lower to an upper bound."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    whole: bool = False

    def contains(self, value: float | int) -> bool:
        """Return whether the number is finite, within the bounds, and of the kind."""
        return (
            math.isfinite(value)
            and (isinstance(value, int) or not self.whole)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {
            "of at least": self.at_least,
            "above": self.above,
            "of at most": self.at_most,
            "below": self.below,
        }
        words = [f"{word} {x}" for word, x in bounds.items() if x is not None]
        kind = "whole" if self.whole else "finite"
        return f"a {kind} number {' and '.join(words)}".rstrip()


def _count(at_least: int) -> Range:
    return Range(at_least=at_least, whole=True)


RANGES = {
    "seed": Range(at_least=0, below=2**31, whole=True),
    "epochs": _count(1),
    "steps": _count(1),
    "accumulate": _count(1),
    "data.train_fraction": Range(above=0, at_most=1),
    "data.subset_seed": Range(at_least=0, below=2**32, whole=True),
    "data.labeled_fraction": Range(above=0, at_most=1),
    "data.labeled_seed": Range(at_least=0, below=2**32, whole=True),
    "data.unlabeled_batch_size": _count(1),
    "data.batch_size": _count(1),
    "data.crop_size": _count(1),
    "data.min_scale": Range(above=0),
    "data.max_scale": Range(above=0),
    "data.cat_max_ratio": Range(above=0, at_most=1),
    "data.num_workers": _count(0),
    "data.cache_bytes": _count(0),
    "model.width": Range(at_least=0.01),
    "model.output_stride": Range(at_least=8, at_most=32, whole=True),
    "model.drop_connect": Range(at_least=0, below=1),
    "model.dropout": Range(at_least=0, below=1),
    "objective.critic_steps": _count(1),
    "objective.alpha": Range(at_least=0),
    "objective.auxiliary": Range(at_least=0),
    "objective.label_smoothing": Range(at_least=0, below=1),
    "objective.hard_pixels": Range(above=0, at_most=1),
    "objective.temperature_end": Range(above=0),
    "objective.temperature_g": Range(above=0),
    "objective.temperature_d": Range(above=0),
    "objective.temperature_seg": Range(above=0),
    "objective.temperature_adv": Range(above=0),
    "semi.alpha": Range(at_least=0),
    "semi.weight": Range(at_least=0),
    "semi.threshold": Range(at_least=0, at_most=1),
    "semi.start": Range(at_least=0, at_most=1),
    "distill.weight": Range(at_least=0),
    "distill.temperature": Range(above=0),
    "distill.pairwise": Range(at_least=0),
    "optimizer.learning_rate_g": Range(at_least=0),
    "optimizer.head_rate": Range(above=0),
    "optimizer.learning_rate_d": Range(at_least=0),
    "optimizer.momentum": Range(at_least=0, below=1),
    "optimizer.l1": Range(at_least=0),
    "optimizer.weight_decay": Range(at_least=0),
    "optimizer.warmup_epochs": Range(at_least=0),
    "optimizer.cycles": _count(1),
    "log_every_steps": _count(1),
    "evaluate_every_epochs": Range(),  # 0 or less: never
    "evaluate_every_steps": _count(1),
    "evaluate_images": _count(0),
    "save_every_steps": _count(1),
    "eval_batch_size": _count(1),
}
"""The range of every numeric field."""

MAY_BE_NONE = (
    "steps",
    "evaluate_every_steps",
    "data.unlabeled_batch_size",
    "model.output_stride",
    "model.dropout",
    "objective.temperature_seg",
    "objective.temperature_adv",
)
"""Numeric fields whose value is that of another field, or the network's, if None."""

CHOICES: dict[str, Collection[str]] = {
    "precision": COMPUTE_DTYPES,
    "data.name": catalog.DATASETS,
    "data.on_error": problem_files.ON_ERROR,
    "model.name": SEGMENTERS,
    "model.head": HEADS,
    "model.freeze_batch_norm": FREEZE_BATCH_NORM,
    "model.discriminator": DISCRIMINATORS,
    "objective.adversary": ADVERSARIES,
    "objective.class_weights": CLASS_WEIGHTS,
    "objective.real": REAL_MAPS,
    "objective.temperature_schedule": TEMPERATURE_SCHEDULES,
    "optimizer.discriminator": DISCRIMINATOR_OPTIMIZERS,
}
"""The choices of every field whose value is a name in a table."""

OTHER_FIELDS = (
    "data.manual_dir",
    "data.data_dir",
    "data.options",
    "data.train_split",
    "data.unlabeled_dir",
    "data.val_split",
    "data.photometric",
    "data.tiles",
    "model.remat",
    "model.pretrained",
    "model.pretrained_missing",
    "objective.conditional",
    "objective.given_class_weights",
    "objective.mask_void",
    "distill.teacher",
    "writer.wandb",
)
"""The remaining fields, which only have to be present."""


def check_fields(config: ConfigDict) -> None:
    """Check that the value of every field is allowed, alone and with other fields.

    Raises:
        ValueError: If a field has a value that is not allowed. The message names the
            field, its value and what is allowed.
    """
    objective = config.get("objective")
    if isinstance(objective, ConfigDict) and "gan" in objective:  # first release
        raise ValueError("objective.gan: now named objective.adversary")
    values = {x: _get(config, x) for x in (*RANGES, *CHOICES, *OTHER_FIELDS)}
    for field, allowed in RANGES.items():
        value = values[field]
        if value is None and field in MAY_BE_NONE:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not allowed.contains(value):
            raise ValueError(f"{field}: {value!r} is not allowed; give {allowed}")
    for field, choices in CHOICES.items():
        value = values[field]
        if not isinstance(value, str) or value not in choices:
            raise ValueError(
                f"{field}: {value!r} is not one of {', '.join(sorted(choices))}; if a "
                "config file adds it, give that file by --config"
            )
    check_combinations(config)


def _get(config: ConfigDict, field: str) -> Any:
    for name in field.split("."):
        if not isinstance(config, ConfigDict) or name not in config:
            raise ValueError(
                f"{field}: missing from the config; configs/fcn_voc.py has every field"
            )
        config = config[name]
    return config
