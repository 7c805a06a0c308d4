"""A workdir belongs to one config, kept beside its checkpoints as config.json."""

import json
import os
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

FREE_FIELDS = (
    "data.manual_dir",
    "data.data_dir",
    "data.num_workers",
    "data.cache_bytes",
    "model.remat",
    "log_every_steps",
    "evaluate_every_epochs",
    "save_every_steps",
    "eval_batch_size",
)
"""Fields that change where or how fast a run computes, or shows it, not what."""


def read_config(workdir: str | Path) -> ConfigDict:
    """Return the config that a workdir was trained with.

    Raises:
        FileNotFoundError: it is not a workdir.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file, so {workdir} is not the workdir of a run; train "
            "with --workdir first, or name another folder"
        )
    return ConfigDict(_tuples(json.loads(path.read_text())))


def check(workdir: str | Path, config: ConfigDict) -> None:
    """See that `workdir` is nobody's or this config's, writing nothing.

    Raises:
        ValueError: it belongs to another config.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        return
    saved, wanted = _flat(read_config(workdir).to_dict()), _flat(config.to_dict())
    changed = [
        f"{field}: {saved.get(field)!r} there, {wanted.get(field)!r} now"
        for field in sorted(saved.keys() | wanted.keys())
        if field not in FREE_FIELDS and saved.get(field) != wanted.get(field)
    ]
    if changed:
        raise ValueError(
            f"{path}: the workdir belongs to another config ("
            + "; ".join(changed)
            + "); choose another --workdir; tempseg_jax.main can also go on from its "
            "checkpoint with the new values: pass --allow_config_change"
        )


def claim(workdir: str | Path, config: ConfigDict, *, allow_change: bool) -> None:
    """Make `workdir` this config's, or see that it already is.

    Args:
        workdir: a folder, created where there is none.
        config: of the run that is about to start.
        allow_change: let go what another config claimed, as where nothing is saved.

    Raises:
        ValueError: it belongs to another config.
    """
    folder = Path(workdir)
    path = folder / "config.json"
    if not allow_change:
        check(workdir, config)
    if jax.process_index():
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"config.json.{os.getpid()}"
    partial.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    partial.replace(path)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = tuple(value) if isinstance(value, list) else value
    return flat


def _tuples(value: Any) -> Any:
    """JSON has no tuples: every list of a config was one."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
