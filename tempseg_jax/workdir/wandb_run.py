"""The run of Weights & Biases that mirrors a workdir: `writer.wandb=True`.

Entity, project, and offline mode are set by the variables of the package itself:
WANDB_ENTITY, WANDB_PROJECT, WANDB_MODE=offline.
"""

import importlib.util
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import UInt8

from tempseg_jax.io import atomic

PROJECT = "tempseg_jax"
"""The project of the runs, if WANDB_PROJECT is not set."""


def check_installed() -> None:
    """Raise a ValueError that says what to install if the package is missing."""
    if importlib.util.find_spec("wandb") is None:
        raise ValueError(
            "writer.wandb: True needs the package wandb; "
            "install it by pip install wandb, or set the field to False"
        )


class WandbRun:
    """Logs scalars and pictures; after a failure it warns once and stops."""

    def __init__(self, workdir: Path, *, config: Mapping[str, Any]):
        """Start a run of Weights & Biases, or go on with that of the workdir.

        Args:
            workdir: The workdir; `wandb/` in it has the files of the package, and
                `wandb_id.txt` the identity of the run, which a resumed training keeps.
            config: All fields of the config, which are shown with the run.
        """
        self._workdir, self._run = workdir, None
        try:
            import wandb  # an optional package, whose import takes a second

            self._image = wandb.Image
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=workdir.resolve().name,
                id=_identity(workdir / "wandb_id.txt"),
                resume="allow",
                dir=str(workdir),
                config=dict(config),
                settings=wandb.Settings(console="off", quiet=True),
            )
            # A resumed training logs again what followed its checkpoint: steps are
            # values of a metric, because those of the package may not go back.
            self._run.define_metric("step", hidden=True)
            self._run.define_metric("*", step_metric="step")
        except Exception as error:
            self._stop(error)

    def add(
        self,
        step: int,
        scalars: Mapping[str, float],
        pictures: Mapping[str, UInt8[np.ndarray, "_ _ 3"]] = MappingProxyType({}),
    ) -> None:
        """Log one step's scalars and pictures."""
        if self._run is None:
            return
        try:
            images = {name: self._image(x) for name, x in pictures.items()}
            self._run.log({"step": step, **scalars, **images})
        except Exception as error:
            self._stop(error)

    def close(self) -> None:
        """Finish the run, after what was logged has been sent or written."""
        try:
            if self._run is not None:
                self._run.finish()
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        self._run = None
        logging.warning(
            "%s: Weights & Biases is no longer written (%s); training goes on, and "
            "metrics.jsonl has every value",
            self._workdir,
            error,
        )


def _identity(path: Path) -> str:
    """Return the identity in a file, which is created if there is none."""
    if not path.exists():
        with atomic.replacing(path) as partial:
            partial.write_text(secrets.token_hex(4) + "\n")
    return path.read_text().strip()
