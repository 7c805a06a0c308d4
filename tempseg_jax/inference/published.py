"""A trained segmenter as a folder that can be shared, and the Hugging Face Hub.

The folder has `weights.safetensors`, `segmenter.json` (architecture, preprocessing,
names and colors of the classes, and the SHA-256 of the weights), the `config.json` of
training, and a model card, `README.md`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree
from safetensors.numpy import load, save_file

from tempseg_jax.io import atomic
from tempseg_jax.workdir import formats
from tempseg_jax.workdir.saved_config import HUB

DESCRIPTION, WEIGHTS, CARD = "segmenter.json", "weights.safetensors", "README.md"
_CONFIG = "config.json"
_AGAIN = "copy or download the folder again"


class Published(NamedTuple):
    """The content of a published folder."""

    model: dict[str, Any]  # as the item of that name in a checkpoint
    step: int
    variables: PyTree


def is_published(folder: str | Path) -> bool:
    """Return whether a folder was written by `write`, and is not a workdir."""
    return (Path(folder) / DESCRIPTION).is_file()


def write(
    variables: PyTree,
    model: dict[str, Any],
    *,
    step: int,
    card: str,
    config: dict[str, Any] | None,
    out: Path,
) -> None:
    """Write the folder; files of other names are kept.

    Args:
        variables: Parameters and running statistics of the segmenter.
        model: The item `model` of its checkpoint.
        step: Training step of the checkpoint.
        card: The model card, as Markdown.
        config: The config of training, by `saved_config.without_folders`; None if it is
            not known.
        out: The folder.

    Raises:
        OSError: If the folder cannot be written.
        ValueError: If it is a workdir, or has a file of one of these names that `write`
            has not written.
    """
    if (out / "checkpoints").exists():
        raise ValueError(f"{out}: is the workdir of a run; choose another folder")
    flat = flatten_dict(jax.device_get(variables), sep="/")
    with atomic.adding_files(out, mark=DESCRIPTION) as folder:
        save_file(
            {k: np.ascontiguousarray(v) for k, v in flat.items()}, folder / WEIGHTS
        )
        (folder / WEIGHTS).chmod(0o644)  # safetensors makes it private to the user
        description = {
            "format": formats.FORMAT,
            "step": step,
            "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
            "model": model,
        }
        text = json.dumps(description, indent=1)
        (folder / DESCRIPTION).write_text(text + "\n")
        (folder / CARD).write_text(card)
        if config is not None:
            (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def read(folder: str | Path) -> Published:
    """Return the content of a published folder; its weights are verified.

    Raises:
        ValueError: If a file is damaged or missing, or a newer version wrote it.
    """
    model, step, digest = _description(folder)
    path = Path(folder) / WEIGHTS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error}); {_AGAIN}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(
            f"{path}: is damaged: its SHA-256 is not {digest}, as {DESCRIPTION} says; "
            f"{_AGAIN}"
        )
    variables = {"batch_stats": {}} | unflatten_dict(load(data), sep="/")
    return Published(model, step, variables)


def read_model(folder: str | Path) -> dict[str, Any]:
    """Return the description of the segmenter in a published folder.

    Raises:
        ValueError: If it cannot be read, or a newer version wrote it.
    """
    return _description(folder)[0]


def _description(folder: str | Path) -> tuple[dict[str, Any], int, str]:
    """Return the segmenter's description, the step, and the weights' SHA-256."""
    path = Path(folder) / DESCRIPTION
    try:
        content = json.loads(path.read_text())
        step, digest, model = (content[k] for k in ("step", "sha256", "model"))
        model |= {"format": content.get("format", 1)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); {_AGAIN}") from error
    upgraded = formats.complete(model, formats.MODEL_UPGRADES, where=str(path))
    return upgraded.fields, step, digest


def fetch(address: str) -> Path:
    """Download hf://USER/NAME (or hf://USER/NAME@REVISION), and return its folder.

    Raises:
        ValueError: If it cannot be downloaded, or is no published segmenter.
    """
    repo, _, revision = address.removeprefix(HUB).partition("@")
    try:
        folder = huggingface_hub.snapshot_download(
            repo, revision=revision or None, allow_patterns=[DESCRIPTION, WEIGHTS]
        )
    except Exception as error:  # each of the client's layers raises its own
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(f"{address}: cannot be downloaded ({reason})") from error
    if not is_published(folder):
        raise ValueError(
            f"{address}: has no {DESCRIPTION}, so scripts/publish.py did not write it"
        )
    return Path(folder)


def upload(folder: Path, repo: str, *, private: bool) -> str:
    """Upload the files of `write` to USER/NAME on the Hub; return its address.

    Raises:
        ValueError: If the Hub refuses it, for example because nobody is logged in.
    """
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[DESCRIPTION, WEIGHTS, CARD, _CONFIG],
        )
    except Exception as error:  # each of the client's layers raises its own
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(
            f"--repo={repo}: cannot be uploaded ({reason}); log in with `hf auth"
            " login`, or write a folder with --out"
        ) from error
    return f"{HUB}{repo}"
