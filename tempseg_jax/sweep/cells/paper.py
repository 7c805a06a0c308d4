"""Cells of the paper's tables 1 to 4."""

from tempseg_jax.sweep.cells.kinds import SUPERVISED, T1, Cell, Overrides, Table


def _decay(value: float) -> Overrides:
    return SUPERVISED | {"optimizer.weight_decay": value}


CELLS = {
    "baseline": Cell("Baseline (α = 0)", SUPERVISED),
    "adversarial": Cell("Adversarial (T = 1)", T1),
    "td0.5": Cell("T_D = 0.5", T1 | {"objective.temperature_d": 0.5}),
    "td2": Cell("T_D = 2", T1 | {"objective.temperature_d": 2.0}),
    "tg0.5": Cell("T_G = 0.5", T1 | {"objective.temperature_g": 0.5}),
    "tg2": Cell("T_G = 2", T1 | {"objective.temperature_g": 2.0}),
    "lambda0": Cell("λ = 0", _decay(0.0)),
    "lambda1e-4": Cell("λ = 1e-4", _decay(1e-4)),
    "lambda2e-4": Cell("λ = 2e-4", _decay(2e-4)),
    "lambda5e-4": Cell("λ = 5e-4", _decay(5e-4)),
}

TABLES = {
    "1": Table(
        "Table 1: λ, without D", ("lambda0", "lambda1e-4", "lambda2e-4", "lambda5e-4")
    ),
    "2": Table("Table 2: T_D (T_G = 1)", ("baseline", "adversarial", "td0.5", "td2")),
    "3": Table("Table 3: T_G (T_D = 1)", ("baseline", "adversarial", "tg0.5", "tg2")),
    "4": Table("Table 4: cost of the discriminator", ("baseline", "adversarial")),
}
