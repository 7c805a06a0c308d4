"""Cells of the tables `grid` and `rates`: learning rates, without and with D."""

from tempseg_jax.sweep.cells.kinds import SUPERVISED, T1, Cell, Table, Times

TEMPERATURES = (0.5, 1.0, 2.0)
RATES = (0.5, 1.0, 2.0, 4.0)

CELLS = {
    **{
        f"t{temperature:g}_rate{factor:g}": Cell(
            f"T = {temperature:g}, learning rate × {factor:g}, without D",
            SUPERVISED
            | {
                "objective.temperature_seg": None if temperature == 1 else temperature,
                "optimizer.learning_rate_g": Times(factor),
            },
        )
        for temperature in TEMPERATURES
        for factor in RATES
    },
    **{
        f"{name}_rate{factor:g}": Cell(
            f"{title}, learning rate × {factor:g}",
            T1
            | {
                "objective.temperature_g": temperature,
                "optimizer.learning_rate_g": Times(factor),
            },
        )
        for name, title, temperature in (
            ("adversarial", "Adversarial (T = 1)", 1.0),
            ("tg0.5", "T_G = 0.5", 0.5),
        )
        for factor in RATES
    },
}

TABLES = {
    "grid": Table(
        "T × learning rate, without D",
        (
            "baseline",
            *(f"t{t:g}_rate{f:g}" for t in TEMPERATURES for f in RATES),
        ),
    ),
    "rates": Table(
        "Learning rate, with D",
        (
            "adversarial",
            *(f"{x}_rate{f:g}" for x in ("adversarial", "tg0.5") for f in RATES),
        ),
    ),
}
