"""The ablation study: the cells of the paper's tables, and other experiments.

A cell is one setting, that is one row of a table; a contrast is a paired comparison of
two cells. All cells are overrides of one config. Each family of tables has its file.
"""

from tempseg_jax.sweep.cells.choice import NO_RATES, choose, configure, trained_as
from tempseg_jax.sweep.cells.kinds import Contrast
from tempseg_jax.sweep.cells.table import CELLS, CONTRASTS, TABLES

__all__ = [
    "CELLS",
    "CONTRASTS",
    "NO_RATES",
    "TABLES",
    "Contrast",
    "choose",
    "configure",
    "trained_as",
]
