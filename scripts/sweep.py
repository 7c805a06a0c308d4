r"""Run the ablation study: train every cell of the paper's tables with several seeds.

    python scripts/sweep.py --config=configs/resnet50_camvid.py --table=3 --seeds=5 \
        --workdir=runs/table3 --config.data.manual_dir=CAMVID --test_split=test

The same command resumes a stopped sweep; --status with --workdir shows its progress.
For several GPUs, start one process for each: CUDA_VISIBLE_DEVICES=0 … --shard=1/2 and
CUDA_VISIBLE_DEVICES=1 … --shard=2/2. scripts/report.py writes the report.
"""

import functools
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from tempseg_jax.cli import command, config_flag, huge_pages
from tempseg_jax.sweep import cells, progress
from tempseg_jax.sweep.run import parse_shard, run_sweep
from tempseg_jax.sweep.scope import Scope, read_scope
from tempseg_jax.workdir import saved_config

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Config file; every cell overrides some of its fields."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the sweep; a sweep in it is resumed."
)
_TABLE = flags.DEFINE_list(
    "table",
    ["3"],
    f"Tables to train, separated by commas: {', '.join(cells.TABLES)}.",
)
_SEEDS = flags.DEFINE_integer("seeds", 5, "Number of runs of each cell.", lower_bound=1)
_CELLS = flags.DEFINE_list("cells", [], "Train only these cells of the tables.")
_SHARD = flags.DEFINE_string(
    "shard", "1/1", "Train only the i-th of n parts of the runs, as i/n."
)
_TEST_SPLIT = flags.DEFINE_string(
    "test_split", "", "Split to evaluate in addition to val, at the end of each run."
)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images",
    None,
    "Number of training images to evaluate for the train-val gap (default: as many as "
    "val has).",
)
_KEEP = flags.DEFINE_bool(
    "keep_checkpoints", False, "Keep the checkpoints of finished runs."
)
_STATUS = flags.DEFINE_bool(
    "status", False, "Show the progress of the sweep in --workdir, and exit."
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main(argv: list[str]) -> bool:
    """Run the sweep or show its status; return False if runs are not finished."""
    if len(argv) > 1:
        raise ValueError(f"{argv[1]!r}: unexpected argument; options start with --")
    if _WORKDIR.value is None:
        raise ValueError(
            "--workdir: missing; give it, for example --workdir=runs/table3"
        )
    if _STATUS.value:
        scope, saved = read_scope(_WORKDIR.value)
        runs = scope.runs(saved_config.read_config(_WORKDIR.value))
        folder = Path(_WORKDIR.value)
        print(progress.view(folder, runs, mine=runs, steps=saved["steps"]))
        return True
    if _CONFIG.value is None:
        raise ValueError(
            "--config: missing; give it, for example --config=configs/demo.py"
        )
    scope = Scope(
        tables=tuple(_TABLE.value),
        seeds=_SEEDS.value,
        test_split=_TEST_SPLIT.value,
        train_images=_TRAIN_IMAGES.value,
    )
    return run_sweep(
        _CONFIG.value,
        _WORKDIR.value,
        scope=scope,
        only=_CELLS.value,
        shard=parse_shard(_SHARD.value),
        keep_checkpoints=_KEEP.value,
    )


def _main(argv: list[str]) -> None:
    if not _STATUS.value:
        huge_pages.restart_with_them()
    command.prepare()
    with command.one_line_errors(debug=_DEBUG.value):
        done = main(argv)
    if not done:
        sys.exit(
            "not all runs are finished: training was stopped, or another process "
            "trains the remaining runs"
        )


_parse = functools.partial(config_flag.parse, config=_CONFIG)

if __name__ == "__main__":
    app.run(_main, flags_parser=_parse)
