r"""Run the ablation study: train every cell of the paper's tables with several seeds.

    python scripts/sweep.py --config=configs/resnet50_camvid.py --table=3 --seeds=5 \
        --workdir=runs/table3 --config.data.manual_dir=CAMVID --test_split=test

The same command resumes a stopped sweep; --status with --workdir shows its progress.
For several GPUs, start one process for each: CUDA_VISIBLE_DEVICES=0 … --shard=1/2 and
CUDA_VISIBLE_DEVICES=1 … --shard=2/2. On a CPU, --jobs=2 trains two runs side by side.
--budget_minutes=60 starts no run that would not end within the hour. scripts/report.py
writes the report.
"""

import functools
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from tempseg_jax.cli import command, config_flag, huge_pages, side_by_side
from tempseg_jax.sweep import cells, progress
from tempseg_jax.sweep.run import parse_shard, run_sweep, runs_of_process
from tempseg_jax.sweep.scope import Scope, parse_rates, read_scope
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
_FIRST_SEED = flags.DEFINE_integer(
    "first_seed", 0, "Seed of the first run of each cell.", lower_bound=0
)
_RATES = flags.DEFINE_list(
    "rates",
    [],
    "Factors on the segmenter's learning rate, as cell:factor, for comparisons of "
    "settings that each have their own best rate: baseline:2,tg0.5:0.5.",
)
_CELLS = flags.DEFINE_list("cells", [], "Train only these cells of the tables.")
_SHARD = flags.DEFINE_string(
    "shard", "1/1", "Train only the i-th of n parts of the runs, as i/n."
)
_JOBS = flags.DEFINE_integer(
    "jobs",
    1,
    "Number of runs that are trained side by side, each on its own part of the cores.",
    lower_bound=1,
)
_BUDGET = flags.DEFINE_float(
    "budget_minutes",
    None,
    "Start no run that would not end within this time, as estimated from the finished "
    "runs (default: unlimited).",
    lower_bound=0.0,
)
_TEST_SPLIT = flags.DEFINE_string(
    "test_split", "", "Split to evaluate in addition to val, at the end of each run."
)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images",
    None,
    "Number of training images to evaluate for the train-val gap (default: as many as "
    "val has).",
    lower_bound=0,
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
        first_seed=_FIRST_SEED.value,
        rates=parse_rates(_RATES.value),
        only=tuple(_CELLS.value),
    )
    shard, folder = parse_shard(_SHARD.value), Path(_WORKDIR.value)
    if _JOBS.value > 1:
        mine = runs_of_process(_CONFIG.value, scope, shard=shard)
        # The last value of a flag counts, and a run in progress is skipped.
        side_by_side.run([*sys.argv, "--jobs=1"], count=_JOBS.value, folder=folder)
        return all(run.finished(folder) for run in mine)
    return run_sweep(
        _CONFIG.value,
        folder,
        scope=scope,
        shard=shard,
        keep_checkpoints=_KEEP.value,
        budget_minutes=_BUDGET.value,
    )


def _main(argv: list[str]) -> None:
    if not _STATUS.value and _JOBS.value == 1:
        huge_pages.restart()
    command.prepare()
    with command.one_line_errors(debug=_DEBUG.value):
        done = main(argv)
    if not done:
        sys.exit(
            "not all runs are finished: training was stopped, another process trains "
            "the remaining runs, or they would not end within --budget_minutes"
            + (f"; see {_WORKDIR.value}/job*.log" if _JOBS.value > 1 else "")
        )


_parse = functools.partial(config_flag.parse, config=_CONFIG)

if __name__ == "__main__":
    app.run(_main, flags_parser=_parse)
