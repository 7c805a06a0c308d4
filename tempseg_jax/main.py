"""Flags of `python -m tempseg_jax.main`, nothing else."""

import functools

from absl import app, flags
from ml_collections import config_flags

from tempseg_jax import describe, evaluate, train
from tempseg_jax.cli import command, config_flag, distributed, huge_pages
from tempseg_jax.inference import sliding_window
from tempseg_jax.workdir import saved_config

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="A file of configs/; --mode=eval has the workdir's own."
)
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
_SPLIT = flags.DEFINE_string("split", None, "What --mode=eval scores, else val_split.")
_WINDOW = flags.DEFINE_integer(
    "window", None, "--mode=eval in windows of so many pixels, else whole images."
)
_STRIDE = flags.DEFINE_integer("stride", None, "Pixels between windows, else 2/3.")
_SCALES = flags.DEFINE_list("scales", ["1"], "--mode=eval averages over these scales.")
_FLIP = flags.DEFINE_bool("flip", False, "--mode=eval averages with mirror images.")
_FIT = flags.DEFINE_bool(
    "fit_temperature", True, "--mode=eval also calibrates on val_split (a pass more)."
)
_ALLOW_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "Go on in a workdir that belongs to another config."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes, as SLURM or Kubernetes says."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "host:port of process 0, where nothing else says."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Of the whole run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Of this one, from 0.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show where an error arose.")


def main(argv: list[str]) -> None:
    """Do what `--mode` says."""
    if len(argv) > 1:
        raise ValueError(f"{argv[1]!r}: unexpected argument; options start with --")
    config = _CONFIG.value
    if config is None and _MODE.value == "eval" and _WORKDIR.value is not None:
        config = saved_config.read_config(_WORKDIR.value)
    if config is None:
        raise ValueError("--config: missing; for example --config=configs/demo.py")
    if _MODE.value == "describe":
        print(describe.describe(config))
        return
    if _WORKDIR.value is None:
        raise ValueError("--workdir: missing; for example --workdir=runs/demo")
    if _MODE.value == "eval":
        evaluate.evaluate(
            config,
            _WORKDIR.value,
            checkpoint=_CHECKPOINT.value,
            split_name=_SPLIT.value,
            settings=sliding_window.InferenceSettings(
                window=_WINDOW.value,
                stride=_STRIDE.value,
                scales=sliding_window.parse_scales(_SCALES.value),
                flip=_FLIP.value,
            ),
            fit=_FIT.value,
        )
    else:
        train.train(config, _WORKDIR.value, allow_change=_ALLOW_CHANGE.value)


def _main(argv: list[str]) -> None:
    if _MODE.value == "train":
        huge_pages.restart_with_them()
    command.prepare()
    with (
        distributed.leaves_at_once(),
        command.one_line_errors(debug=_DEBUG.value),
        distributed.names_a_lost_process(),
    ):
        distributed.join(
            automatic=_DISTRIBUTED.value,
            coordinator_address=_COORDINATOR.value,
            num_processes=_NUM_PROCESSES.value,
            process_id=_PROCESS_ID.value,
        )
        main(argv)


def run() -> None:
    """Run the command line; the console script `tempseg` calls this."""
    app.run(_main, flags_parser=functools.partial(config_flag.parse, config=_CONFIG))


if __name__ == "__main__":
    run()
