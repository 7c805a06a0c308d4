"""Train every cell of the paper's tables, with seeds and controls.

    python scripts/sweep.py --config=configs/resnet50_camvid.py --table=3 --seeds=5 \
        --workdir=runs/table3 --config.data.manual_dir=CAMVID --test_split=test

Started again, it goes on where it was stopped; with --status and --workdir alone it
shows how far it is. On several GPUs, one process each:
CUDA_VISIBLE_DEVICES=0 … --shard=1/2, CUDA_VISIBLE_DEVICES=1 … --shard=2/2. Then
scripts/report.py makes the page.
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
    "config", help_string="A file of configs/; what every cell starts from."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the sweep lives; resumed from.")
_TABLE = flags.DEFINE_list(
    "table", ["3"], f"Of {', '.join(cells.TABLES)}; several separated by commas."
)
_SEEDS = flags.DEFINE_integer("seeds", 5, "Runs of each cell.", lower_bound=1)
_CELLS = flags.DEFINE_list("cells", [], "Train only these cells of the tables now.")
_SHARD = flags.DEFINE_string("shard", "1/1", "i/n: train the i-th of n parts.")
_TEST_SPLIT = flags.DEFINE_string(
    "test_split", "", "Score this split too, once, at the end of each run."
)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images",
    None,
    "Training images scored for the train-val gap; by default as many as val has.",
)
_KEEP = flags.DEFINE_bool(
    "keep_checkpoints", False, "Keep the checkpoints of finished runs."
)
_STATUS = flags.DEFINE_bool(
    "status", False, "Show how far the sweep of --workdir is, and stop."
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show where an error arose.")


def main(argv: list[str]) -> bool:
    """Do what the flags say; return whether everything is done."""
    if len(argv) > 1:
        raise ValueError(f"{argv[1]!r}: unexpected argument; options start with --")
    if _WORKDIR.value is None:
        raise ValueError("--workdir: missing; for example --workdir=runs/table3")
    if _STATUS.value:
        scope, saved = read_scope(_WORKDIR.value)
        runs = scope.runs(saved_config.read_config(_WORKDIR.value))
        folder = Path(_WORKDIR.value)
        print(progress.view(folder, runs, mine=runs, steps=saved["steps"]))
        return True
    if _CONFIG.value is None:
        raise ValueError("--config: missing; for example --config=configs/demo.py")
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
        sys.exit("not everything is done: stopped, or left to another process")


_parse = functools.partial(config_flag.parse, config=_CONFIG)

if __name__ == "__main__":
    app.run(_main, flags_parser=_parse)
