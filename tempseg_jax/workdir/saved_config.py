"""The config of a workdir, which is saved as JSON in its config.json."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict, config_dict

from tempseg_jax.io.json_files import read_json, write_json
from tempseg_jax.workdir import formats

HUB = "hf://"
"""The start of an address on the Hugging Face Hub, as in hf://USER/NAME."""

HOST_FIELDS = (
    "data.manual_dir",
    "data.data_dir",
    "data.num_workers",
    "data.cache_bytes",
    "data.tiles",
)
"""Fields that may differ between the hosts of a run: where its data are, and how they
are stored and read."""

FREE_FIELDS = (
    *HOST_FIELDS,
    "model.remat",
    "log_every_steps",
    "evaluate_every_epochs",
    "evaluate_every_steps",
    "save_every_steps",
    "eval_batch_size",
    "writer.wandb",
)
"""Fields that may change when a run is resumed: they do not affect the training result,
but where files are, the speed, the logging and the evaluation."""

MOVABLE_FIELDS = ("model.pretrained",)
MOVABLE_FILES = (".safetensors", ".h5", ".hdf5")
"""Paths of which only the last part must stay when a run is resumed: the folder that
holds them may be another, as on another machine. Only the start of a run reads the file
of weights. A teacher and unlabeled images are read by every step. Folders are not
movable, because other ones often have the same name, such as seed0 or images."""


class SavedConfig(NamedTuple):
    """The config of a workdir, with the fields that this version has."""

    config: ConfigDict
    changes: list[str]  # in words; empty if this version's format was saved


def read_saved(workdir: str | Path) -> SavedConfig:
    """Return a workdir's config, completed if an older version saved it.

    Raises:
        FileNotFoundError: If the folder has no config.json.
        ValueError: If the file is not JSON, or a newer version saved it, or it does not
            hold a config.
    """
    path = _path(workdir)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file, so {workdir} is not the workdir of a run; train "
            "with --workdir first, or name another folder"
        )
    remedy = "restore the file, or train in another --workdir"
    content = read_json(path, remedy=remedy)
    fields, changes = formats.complete(
        content, formats.CONFIG_UPGRADES, where=str(path)
    )
    return SavedConfig(ConfigDict(_tuples(fields)), changes)


def read_config(workdir: str | Path) -> ConfigDict:
    """Return a workdir's config, and print what was changed to complete it.

    Raises:
        FileNotFoundError: If the folder has no config.json.
        ValueError: If the file is not JSON, or a newer version saved it.
    """
    config, changes = read_saved(workdir)
    _print_changes(workdir, changes)
    return config


def get_config(workdir: str) -> ConfigDict:
    """Return a workdir's config for the flag `--config`, which may override its fields.

    ml_collections calls this for --config=configs/saved.py:WORKDIR, while it reads the
    flags. Processes that train together have not found each other yet, and so nothing
    is printed.

    Raises:
        FileNotFoundError: If the folder has no config.json.
        ValueError: If the file is not JSON, or a newer version saved it.
    """
    config = read_saved(workdir).config
    _allow_overrides(config)
    return config


def without_folders(workdir: str | Path) -> dict[str, Any] | None:
    """Return the content of config.json without folders of this machine.

    A config that is shared must not tell them. Files of weights, the teacher's workdir
    and the folder of unlabeled images keep their names, and addresses on the
    Hugging Face Hub are kept whole. The result is None if the workdir has no
    config.json.

    Raises:
        ValueError: If the file cannot be read.
    """
    try:
        config = read_saved(workdir).config.to_dict()
    except FileNotFoundError:
        return None
    config["data"] |= {"manual_dir": None, "data_dir": None}
    for section, field in (
        ("data", "unlabeled_dir"),
        ("model", "pretrained"),
        ("distill", "teacher"),
    ):
        value = config[section][field]
        if not value.startswith(HUB):
            config[section][field] = Path(value).name
    return {"format": formats.FORMAT} | config


_REMEDY = (
    "choose another --workdir, or continue from its checkpoint with the new values: "
    "pass --allow_config_change to tempseg_jax.main"
)


def check(workdir: str | Path, config: ConfigDict, *, remedy: str = _REMEDY) -> None:
    """Check that a workdir is unclaimed, or claimed by this config; write nothing.

    Args:
        workdir: A folder, which need not exist.
        config: The config of the run that is about to start.
        remedy: The end of the message: what to do if it is claimed by another config.

    Raises:
        ValueError: If it is claimed by another config, or its config cannot be read.
    """
    if not _path(workdir).exists():
        return
    saved, changes = read_saved(workdir)
    found = differences(saved, config)
    if found:
        raise ValueError(
            f"{_path(workdir)}: the workdir belongs to another config ("
            f"{'; '.join(found)}); {remedy}"
        )
    _print_changes(workdir, changes)


def differences(saved: ConfigDict, wanted: ConfigDict) -> list[str]:
    """Return the fields that differ, with both values, and would change training."""
    there, now = _flat(saved.to_dict()), _flat(wanted.to_dict())
    return [
        f"{field}: {_shown(there, field)} there, {_shown(now, field)} now"
        for field in sorted(there.keys() | now.keys())
        if field not in FREE_FIELDS and _compared(there, field) != _compared(now, field)
    ]


def common_to_hosts(config: ConfigDict) -> dict[str, Any]:
    """Return the fields, by dotted path, that all hosts of a run must agree on."""
    fields = _flat(config.to_dict())
    return {x: _compared(fields, x) for x in fields if x not in HOST_FIELDS}


def print_upgrade(workdir: str | Path) -> None:
    """Print what completes a workdir's config that an older version saved.

    Nothing is printed if the file is missing or cannot be read.
    """
    try:
        changes = read_saved(workdir).changes
    except (OSError, ValueError):
        return
    _print_changes(workdir, changes)


def claim(
    workdir: str | Path,
    config: ConfigDict,
    *,
    allow_change: bool,
    remedy: str = _REMEDY,
) -> None:
    """Save the config in a workdir, which from then on belongs to it.

    Args:
        workdir: A folder, which is created if it does not exist.
        config: The config of the run that is about to start.
        allow_change: Replace another config without an error.
        remedy: The end of the message of that error, as in `check`.

    Raises:
        ValueError: If the workdir is claimed by another config, or its config cannot
            be read; not with `allow_change`.
    """
    if not allow_change:
        check(workdir, config, remedy=remedy)
    if jax.process_index() == 0:
        write_json(_path(workdir), {"format": formats.FORMAT} | config.to_dict())


def _path(workdir: str | Path) -> Path:
    return Path(workdir) / "config.json"


def _print_changes(workdir: str | Path, changes: list[str]) -> None:
    """Print one line, on the first process, if an older version saved the config."""
    if changes and jax.process_index() == 0:
        print(
            f"{_path(workdir)}: saved by an older version, and completed with its "
            f"defaults: {'; '.join(changes)}",
            flush=True,
        )


def _allow_overrides(config: ConfigDict) -> None:
    """Let fields that are None be overridden, whose types JSON does not tell."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            _allow_overrides(value)
        elif value is None:
            config[name] = config_dict.placeholder(object)


def _compared(fields: dict[str, Any], field: str) -> Any:
    value = fields.get(field)
    movable = field in MOVABLE_FIELDS and str(value).endswith(MOVABLE_FILES)
    return Path(value).name if movable else value


def _shown(fields: dict[str, Any], field: str) -> str:
    return repr(fields[field]) if field in fields else "absent"


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values by dotted path."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = _tuples(value)
    return flat


def _tuples(value: Any) -> Any:
    """Replace every list by a tuple: configs have no lists, and JSON has no tuples."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
