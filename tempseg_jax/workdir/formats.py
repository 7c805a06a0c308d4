"""The format number of a run's files, and what completes a file of an older format.

`config.json` and the `model` item of a checkpoint carry the number under the key
`format`, which is not a field in memory. A file without a number is of format 1, the
first release's. Format 2 is that of the results in docs/results/data.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

FORMAT = 3
"""The format that this version writes. It reads this one and all older ones."""


class Upgrade(NamedTuple):
    """How the fields of one format become those of the next one."""

    renamed: Mapping[str, str]  # old name -> new name, as dotted paths
    defaults: Mapping[str, Any]  # dotted path -> value, where the field is absent
    values: Mapping[str, Mapping[Any, Any]] = {}  # dotted path -> {old: new value}


CONFIG_UPGRADES = {
    1: Upgrade(
        renamed={"objective.gan": "objective.adversary"},
        defaults={
            "accumulate": 1,
            "data.cache_bytes": 0,
            "data.cat_max_ratio": 1.0,
            "data.on_error": "raise",
            "data.photometric": False,
            "data.subset_seed": 0,
            "data.train_fraction": 1.0,
            "data.tiles": False,
            "evaluate_every_steps": None,
            "evaluate_images": 0,
            "distill.pairwise": 0.0,
            "distill.teacher": "",
            "distill.temperature": 1.0,
            "distill.weight": 1.0,
            "model.discriminator": "dcgan",
            "model.freeze_batch_norm": "none",
            "model.pretrained_missing": (),
            "model.remat": False,
            "model.drop_connect": 0.0,
            "model.dropout": None,
            "objective.adversary": "lsgan",
            "objective.class_weights": "none",
            "objective.conditional": False,
            "objective.critic_steps": 1,
            "objective.given_class_weights": (),
            "objective.hard_pixels": 1.0,
            "objective.label_smoothing": 0.0,
            "objective.mask_void": True,
            "objective.real": "one_hot",
            "objective.temperature_adv": None,
            "objective.temperature_end": 1.0,
            "objective.temperature_schedule": "constant",
            "objective.temperature_seg": None,
            "optimizer.cycles": 1,
            "optimizer.discriminator": "adam",
            "optimizer.head_rate": 1.0,
            "optimizer.l1": 0.0,
            "optimizer.weight_decay": 0.0,
        },
    ),
    2: Upgrade(
        renamed={},
        defaults={
            "data.labeled_fraction": 1.0,
            "data.labeled_seed": 0,
            "data.unlabeled_batch_size": None,
            "data.unlabeled_dir": "",
            "model.head": "score",
            "model.output_stride": None,
            "objective.auxiliary": 0.0,
            "semi.alpha": 0.0,
            "semi.start": 0.25,
            "semi.threshold": 0.2,
            "semi.weight": 0.0,
            "writer.wandb": False,
        },
    ),
}
"""For `config.json`, by the format that is upgraded.

A new field of a config needs a default here, for the format before it was added: the
value with which an older run computes the same as before.
"""

MODEL_UPGRADES = {
    1: Upgrade(
        renamed={},
        defaults={"drop_connect": 0.0},
        # Format 1 has only whether there is a discriminator, of the one architecture.
        values={"discriminator": {True: "dcgan", False: None}},
    ),
    2: Upgrade(
        renamed={},
        defaults={"auxiliary": False, "head": "score", "output_stride": None},
    ),
}
"""For the `model` item of a checkpoint, by the format that is upgraded."""


class Completed(NamedTuple):
    """The fields of a file in this version's format."""

    fields: dict[str, Any]
    changes: list[str]  # in words, one for each field that was renamed or added


def complete(content: Any, upgrades: Mapping[int, Upgrade], *, where: str) -> Completed:
    """Return a file's fields in the current format, without its format number.

    Args:
        content: Content of the file, as read from JSON; it is not modified.
        upgrades: CONFIG_UPGRADES or MODEL_UPGRADES.
        where: Name of the file for error messages.

    Raises:
        ValueError: If the file's format is newer than this version, or is no format;
            or if the file or a section of it is no JSON object.
    """
    _check_objects(content, upgrades, where)
    number = content.get("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise ValueError(
            f"{where}: its format is {number!r}, and this version of tempseg_jax reads "
            f"formats 1 to {FORMAT}; use the version that wrote it, or a newer one"
        )
    fields = _copy({k: v for k, v in content.items() if k != "format"})
    changes = []
    for older in range(number, FORMAT):
        if older in upgrades:
            changes += _upgrade(fields, upgrades[older])
    return Completed(fields, changes)


def _upgrade(fields: dict[str, Any], upgrade: Upgrade) -> list[str]:
    """Rename, add and replace fields in place; return the changes in words."""
    changes = []
    for old, new in upgrade.renamed.items():
        section, name = _section(fields, old)
        if name in section:
            value = section.pop(name)
            section, name = _section(fields, new)
            section[name] = value
            changes.append(f"{old} is now {new}")
    for field, default in upgrade.defaults.items():
        section, name = _section(fields, field)
        if name not in section:
            section[name] = default
            changes.append(f"{field} = {default!r}")
    for field, new_values in upgrade.values.items():
        section, name = _section(fields, field)
        if name in section:
            old = section[name]
            if old in list(new_values):  # any other value is kept as it is
                section[name] = new_values[old]
                changes.append(f"{field}: {old!r} is now {section[name]!r}")
    return changes


def _check_objects(content: Any, upgrades: Mapping[int, Upgrade], where: str) -> None:
    """Check that the file, and every section that an upgrade names, is an object."""
    paths = {
        path
        for upgrade in upgrades.values()
        for path in (*upgrade.renamed, *upgrade.defaults, *upgrade.values)
    }
    objects = {"the file": content}
    for path in sorted(paths):
        *sections, _ = path.split(".")
        fields = content
        for section in sections:
            fields = fields.get(section, {}) if isinstance(fields, Mapping) else {}
            objects[section] = fields
    for name, value in objects.items():
        if not isinstance(value, Mapping):
            raise ValueError(
                f"{where}: {name} must be a JSON object, not {str(value)[:40]!r}; "
                "restore the file"
            )


def _section(fields: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the innermost section of a dotted path, and the last name."""
    *sections, name = path.split(".")
    for section in sections:
        fields = fields.setdefault(section, {})
    return fields, name


def _copy(value: Any) -> Any:
    """Copy nested dictionaries, so that the caller's are not modified."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return value
