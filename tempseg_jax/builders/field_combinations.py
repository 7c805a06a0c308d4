"""Fields of the config that need, or exclude, a value of another field."""

from ml_collections import ConfigDict

from tempseg_jax.builders.plan import uses_unlabeled
from tempseg_jax.models import (
    BATCH_NORM_DISCRIMINATORS,
    DISCRIMINATORS,
    PIXELWISE_DISCRIMINATORS,
)
from tempseg_jax.objective.adversaries import ADVERSARIES

NEEDS_WHOLE_BATCH = {
    "objective.critic_steps": 1,
    "objective.class_weights": "none",
    "objective.hard_pixels": 1.0,
    "semi.alpha": 0.0,
    "semi.weight": 0.0,
}
"""The values with which an objective does not need the whole batch at once.

The reasons are those of `Objective.needs_whole_batch`.
"""


def check_combinations(config: ConfigDict) -> None:
    """Check the fields that depend on each other; each alone is checked already.

    Raises:
        ValueError: If two fields do not go together. The message names the field, its
            value and the remedy.
    """
    _check_scales(config)
    _check_accumulation(config)
    _check_class_weights(config)
    _check_teacher(config)
    _check_temperature_schedule(config)
    _check_frozen_batch_norm(config)
    if config.objective.alpha:
        _check_penalty(config)
    if uses_unlabeled(config):
        _check_unlabeled(config)
    if config.semi.weight > 0:
        _check_self_training(config)


def _check_scales(config: ConfigDict) -> None:
    if config.data.min_scale > config.data.max_scale:
        raise ValueError(
            f"data.min_scale: {config.data.min_scale} is above data.max_scale "
            f"{config.data.max_scale}; give at most that"
        )


def _check_accumulation(config: ConfigDict) -> None:
    if config.data.batch_size % config.accumulate:
        raise ValueError(
            f"accumulate: a batch of {config.data.batch_size} images does not divide "
            f"into {config.accumulate} micro-batches; choose a divisor of "
            "data.batch_size"
        )
    for field, off in NEEDS_WHOLE_BATCH.items():
        section, name = field.split(".")
        if name == "critic_steps" and not config.objective.alpha:
            continue  # no D
        if config.accumulate > 1 and config[section][name] != off:
            raise ValueError(
                f"{field}: {config[section][name]!r} needs the whole batch at once; "
                f"set it to {off!r}, or accumulate to 1"
            )


def _check_class_weights(config: ConfigDict) -> None:
    name, given = config.objective.class_weights, config.objective.given_class_weights
    if given and name != "given":
        raise ValueError(
            f"objective.given_class_weights: {tuple(given)} has no effect with "
            f"objective.class_weights={name!r}; set that to 'given', or this to ()"
        )


def _check_teacher(config: ConfigDict) -> None:
    distill, objective = config.distill, config.objective
    for_d = objective.real == "teacher" and objective.alpha > 0
    if not distill.teacher and (objective.real == "teacher" or distill.pairwise):
        field = "distill.pairwise" if distill.pairwise else "objective.real"
        raise ValueError(
            f"distill.teacher: empty, but {field} needs a teacher; give the workdir of "
            "a trained run"
        )
    if distill.teacher and not (distill.weight or distill.pairwise or for_d):
        raise ValueError(
            f"distill.teacher: {distill.teacher} has no effect; set distill.weight or "
            "distill.pairwise above 0, or objective.real to 'teacher' with a "
            "discriminator"
        )


def _check_temperature_schedule(config: ConfigDict) -> None:
    objective = config.objective
    if objective.temperature_schedule == "constant" and objective.temperature_end != 1:
        raise ValueError(
            f"objective.temperature_end: {objective.temperature_end} has no effect with"
            " objective.temperature_schedule='constant'; set that to 'linear' or "
            "'cosine', or this to 1"
        )


def _check_frozen_batch_norm(config: ConfigDict) -> None:
    freeze = config.model.freeze_batch_norm
    if freeze != "none" and not config.model.pretrained:
        raise ValueError(
            f"model.freeze_batch_norm: {freeze!r} keeps the statistics of pretrained "
            "weights, but model.pretrained is empty, and without weights they normalize"
            " nothing; set model.pretrained, or this to 'none'"
        )


def _check_penalty(config: ConfigDict) -> None:
    adversary, network = config.objective.adversary, config.model.discriminator
    if ADVERSARIES[adversary].penalty is None:
        return
    if network in BATCH_NORM_DISCRIMINATORS:
        others = sorted(set(DISCRIMINATORS) - set(BATCH_NORM_DISCRIMINATORS))
        raise ValueError(
            f"model.discriminator: {network!r} has BatchNorm, through which the score "
            "of an image depends on the other images; the penalty of "
            f"objective.adversary={adversary!r} needs a discriminator without it: "
            f"{', '.join(others)}"
        )


def _check_unlabeled(config: ConfigDict) -> None:
    own = "semi.weight" if config.semi.weight > 0 else "semi.alpha"
    if config.data.labeled_fraction == 1 and not config.data.unlabeled_dir:
        raise ValueError(
            f"data.labeled_fraction: 1.0 leaves no unlabeled image for {own}; set it "
            "below 1, or set data.unlabeled_dir"
        )
    if not config.objective.alpha:
        raise ValueError(
            f"objective.alpha: 0 trains no discriminator, which {own} needs; set it "
            f"above 0, or semi.alpha and semi.weight to 0"
        )


def _check_self_training(config: ConfigDict) -> None:
    network, adversary = config.model.discriminator, config.objective.adversary
    if config.semi.start == 1:
        raise ValueError(
            "semi.start: 1.0 is after the last step, so that semi.weight has no effect;"
            " set it below 1, or semi.weight to 0"
        )
    if network not in PIXELWISE_DISCRIMINATORS:
        raise ValueError(
            f"model.discriminator: {network!r} has no score for each pixel, which "
            f"semi.weight needs; choose {', '.join(PIXELWISE_DISCRIMINATORS)}, or set "
            "semi.weight to 0"
        )
    if ADVERSARIES[adversary].confidence is None:
        known = (name for name, x in ADVERSARIES.items() if x.confidence is not None)
        raise ValueError(
            f"objective.adversary: the scores of {adversary!r} are not probabilities, "
            f"which semi.weight needs; choose {', '.join(known)}, or set semi.weight "
            "to 0"
        )
