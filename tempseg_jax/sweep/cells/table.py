"""All cells, tables and contrasts of sweeps."""

from tempseg_jax.sweep.cells import (
    adversaries,
    controls,
    labels,
    networks,
    paper,
    rates,
    regularizers,
)

# Of equal cells the first one is trained: the order of the families is part of a sweep.
CELLS = (
    paper.CELLS
    | controls.CELLS
    | regularizers.CELLS
    | adversaries.CELLS
    | rates.CELLS
    | labels.CELLS
    | networks.CELLS
)

TABLES = (
    paper.TABLES
    | controls.TABLES
    | adversaries.TABLES
    | regularizers.TABLES
    | labels.TABLES
    | networks.TABLES
    | rates.TABLES
)

CONTRASTS = (
    *controls.CONTRASTS,
    *regularizers.CONTRASTS,
    *adversaries.CONTRASTS,
    *labels.CONTRASTS,
    *networks.CONTRASTS,
)
"""The planned comparisons, for the cells that a sweep has."""
