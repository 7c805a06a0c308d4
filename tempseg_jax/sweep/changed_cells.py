"""Whether a finished run was trained with the values that its cell has now."""

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from tempseg_jax.sweep import cells
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir import saved_config


def changed_values(
    config: ConfigDict, run: Run, sweep: Path, *, rates: Mapping[str, float]
) -> list[str]:
    """Return the fields of a run whose values another version of its cell had.

    Runs of both versions cannot be compared. The list is empty if the run has no
    config.json.

    Args:
        config: The config of the sweep.
        run: A finished run.
        sweep: Folder of the sweep.
        rates: Factors on the segmenter's learning rate, by cell.

    Raises:
        ValueError: If the config of the run cannot be read.
    """
    try:
        saved = saved_config.read_saved(run.folder(sweep)).config
    except FileNotFoundError:
        return []
    now = cells.configure(config, run.cell, seed=run.seed, rates=rates)
    return saved_config.differences(saved, now)
