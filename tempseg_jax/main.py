"""Train a segmentation network, evaluate a checkpoint, or describe a config.

    python -m tempseg_jax.main --config=configs/demo.py --workdir=runs/demo
    python -m tempseg_jax.main --config=configs/demo.py --workdir=runs/demo --mode=eval
    python -m tempseg_jax.main --config=configs/demo.py --mode=describe

Every field of the config can be overridden, as by --config.data.batch_size=8.
"""

import functools

from absl import app, flags
from ml_collections import config_flags

from tempseg_jax import describe, evaluate, train
from tempseg_jax.cli import command, config_flag, distributed, huge_pages
from tempseg_jax.inference.settings import InferenceSettings, parse_scales
from tempseg_jax.workdir import saved_config

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    help_string="Config file, such as configs/demo.py; default in --mode=eval and "
    "--mode=describe: the config saved in --workdir. configs/saved.py:WORKDIR is the "
    "config of an earlier run.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; training resumes from its last checkpoint."
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "eval", "describe"],
    "Train, evaluate a checkpoint, or print the sizes of the networks and the config.",
)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "best",
    "Checkpoint for --mode=eval: best (highest validation mIoU), latest, or a step.",
)
_SPLIT = flags.DEFINE_string(
    "split", None, "Split for --mode=eval; default: data.val_split of the config."
)
_WINDOW = flags.DEFINE_integer(
    "window",
    None,
    "Sliding-window inference in --mode=eval, with square windows of this many pixels "
    "a side; default: images of up to 2048 x 1024 pixels run whole, larger ones in "
    "windows of 1024.",
)
_STRIDE = flags.DEFINE_integer(
    "stride", None, "Pixels between windows; default: two thirds of --window."
)
_SCALES = flags.DEFINE_list(
    "scales",
    ["1"],
    "Test-time augmentation in --mode=eval: average over these scales, such as "
    "0.75,1,1.25.",
)
_FLIP = flags.DEFINE_bool(
    "flip",
    False,
    "Test-time augmentation in --mode=eval: also average over mirror images.",
)
_FIT = flags.DEFINE_bool(
    "fit_temperature",
    True,
    "In --mode=eval, also fit the temperature that minimizes the negative "
    "log-likelihood on data.val_split, which takes another pass over that split.",
)
_LIMIT = flags.DEFINE_integer(
    "limit",
    None,
    "In --mode=eval, evaluate only this many images, evenly spaced in the split; the "
    "result says so, and its files are named eval-<split>-limit<N>.",
)
_OUT = flags.DEFINE_string(
    "out", None, "Folder that --mode=eval writes to; default: --workdir."
)
_OF_EVALUATION = (
    *(_CHECKPOINT, _SPLIT, _WINDOW, _STRIDE, _SCALES, _FLIP, _FIT, _LIMIT, _OUT),
)
_ALLOW_CHANGE = flags.DEFINE_bool(
    "allow_config_change",
    False,
    "Resume training in --workdir although it was started with another config or data.",
)
_FALLBACK = flags.DEFINE_bool(
    "checkpoint_fallback",
    True,
    "If the latest checkpoint is damaged, rename it and resume from an older one.",
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Training with several processes: detect them from SLURM, Kubernetes, Open MPI or "
    "a TPU pod.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address",
    None,
    "Training with several processes: host:port of process 0; needs --num_processes "
    "and --process_id.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Training with several processes: number of processes."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id",
    None,
    "Training with several processes: number of this process, from 0.",
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main(argv: list[str]) -> None:
    """Run the command that `--mode` selects."""
    if len(argv) > 1:
        raise ValueError(f"{argv[1]!r}: unexpected argument; options start with --")
    config = _CONFIG.value
    if config is None:
        raise ValueError("--config: missing; for example --config=configs/demo.py")
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    if path == _config_of_the_run():
        saved_config.print_upgrade(_WORKDIR.value)
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
            settings=InferenceSettings(
                window=_WINDOW.value,
                stride=_STRIDE.value,
                scales=parse_scales(_SCALES.value),
                flip=_FLIP.value,
            ),
            fit=_FIT.value,
            limit=_LIMIT.value,
            out=_OUT.value,
        )
    else:
        _check_flags_of_training()
        train.train(
            config,
            _WORKDIR.value,
            allow_change=_ALLOW_CHANGE.value,
            fallback=_FALLBACK.value,
        )


def _check_flags_of_training() -> None:
    """Refuse the flags of an evaluation, which training would ignore."""
    for flag in _OF_EVALUATION:
        if flags.FLAGS[flag.name].present:
            raise ValueError(
                f"--{flag.name}: only with --mode=eval; training resumes from the "
                "latest checkpoint and evaluates data.val_split"
            )


def _main(argv: list[str]) -> None:
    if _MODE.value == "train":
        huge_pages.restart()
    command.prepare()
    with (
        distributed.exit_without_waiting(),
        command.one_line_errors(debug=_DEBUG.value),
        distributed.report_lost_process(),
    ):
        distributed.join(
            automatic=_DISTRIBUTED.value,
            coordinator_address=_COORDINATOR.value,
            num_processes=_NUM_PROCESSES.value,
            process_id=_PROCESS_ID.value,
            trains=_MODE.value == "train",
        )
        main(argv)


def _config_of_the_run() -> str | None:
    """Return the value of --config for the config that is saved in --workdir."""
    if _MODE.value == "train" or _WORKDIR.value is None:
        return None
    return f"{saved_config.__file__}:{_WORKDIR.value}"


_parse = functools.partial(
    config_flag.parse, config=_CONFIG, default=_config_of_the_run
)


def run() -> None:
    """Run the command line, as the console script `tempseg` does."""
    app.run(_main, flags_parser=_parse)


if __name__ == "__main__":
    run()
