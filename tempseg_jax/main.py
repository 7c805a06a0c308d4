"""Flags of `python -m tempseg_jax.main`, nothing else."""

import os
import sys
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from tempseg_jax import experiment

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; resumed from.")
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "eval", "describe"],
    "Train, score a checkpoint, or print the networks and the config (needs no data).",
)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "What --mode=eval scores: best, latest, or a step."
)
_ALLOW_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "Go on in a workdir that belongs to another config."
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show where an error arose.")


def main(argv: list[str]) -> None:
    """Do what `--mode` says."""
    if len(argv) > 1:
        raise ValueError(f"{argv[1]!r}: unexpected argument; options start with --")
    if _CONFIG.value is None:
        raise ValueError("--config: missing; for example --config=configs/demo.py")
    if _MODE.value == "describe":
        print(experiment.describe(_CONFIG.value))
        return
    if _WORKDIR.value is None:
        raise ValueError("--workdir: missing; for example --workdir=runs/demo")
    if _MODE.value == "eval":
        experiment.score(_CONFIG.value, _WORKDIR.value, checkpoint=_CHECKPOINT.value)
    else:
        experiment.train(
            _CONFIG.value, _WORKDIR.value, allow_change=_ALLOW_CHANGE.value
        )


def _main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of every save
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", str(cache / "tempseg_jax" / "xla"))
    try:
        main(argv)
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(_main)
