"""The ablation study: the cells of the paper's tables, and control experiments.

A cell is one setting, that is one row of a table; a contrast is a paired comparison of
two cells. All cells are overrides of one config.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ml_collections import ConfigDict

from tempseg_jax.sweep import label_cells
from tempseg_jax.sweep.cell import Cell, Contrast, Overrides, Table, Times, Value

NO_RATES: Mapping[str, float] = MappingProxyType({})
_RATE = "optimizer.learning_rate_g"
_T1 = {
    "objective.temperature_g": 1.0,
    "objective.temperature_d": 1.0,
    "objective.temperature_seg": None,
    "objective.temperature_adv": None,
}
_SUPERVISED = _T1 | {"objective.alpha": 0.0}


_GRID_TEMPERATURES = (0.5, 1.0, 2.0)
_GRID_RATES = (0.5, 1.0, 2.0, 4.0)


# D learns with a thousand times the rate of the paper.
_LEARNING_D = _T1 | {"optimizer.learning_rate_d": 1e-4}
_WGAN = _LEARNING_D | {
    "model.discriminator": "dcgan_ln",
    "objective.adversary": "wgan_gp",
    "objective.critic_steps": 5,
    "optimizer.discriminator": "adam_no_momentum",
}


def _decay(value: float) -> dict[str, float | None]:
    return _SUPERVISED | {"optimizer.weight_decay": value}


CELLS = {
    "baseline": Cell("Baseline (α = 0)", _SUPERVISED),
    "adversarial": Cell("Adversarial (T = 1)", _T1),
    "td0.5": Cell("T_D = 0.5", _T1 | {"objective.temperature_d": 0.5}),
    "td2": Cell("T_D = 2", _T1 | {"objective.temperature_d": 2.0}),
    "tg0.5": Cell("T_G = 0.5", _T1 | {"objective.temperature_g": 0.5}),
    "tg2": Cell("T_G = 2", _T1 | {"objective.temperature_g": 2.0}),
    "lambda0": Cell("λ = 0", _decay(0.0)),
    "lambda1e-4": Cell("λ = 1e-4", _decay(1e-4)),
    "lambda2e-4": Cell("λ = 2e-4", _decay(2e-4)),
    "lambda5e-4": Cell("λ = 5e-4", _decay(5e-4)),
    # Separates the effect of T_G in L_seg from that in L_adv.
    "seg_only": Cell(
        "T_G = 0.5 on L_seg, without D",
        _SUPERVISED | {"objective.temperature_seg": 0.5},
    ),
    "adv_only": Cell(
        "T_G = 0.5 on L_adv only",
        _T1 | {"objective.temperature_adv": 0.5},
    ),
    # The gradient of a loss of z / T is 1 / T times as large at equal probabilities.
    "rate_matched": Cell(
        "T = 1, learning rate × 2",
        _T1 | {"optimizer.learning_rate_g": Times(2.0)},
    ),
    "frozen_d": Cell(
        "Frozen D",
        _T1 | {"optimizer.learning_rate_d": 0.0},
    ),
    "learning_d": Cell(
        "D with learning rate 1e-4",
        _LEARNING_D,
    ),
    "void_shown": Cell(
        "Without void masking",
        _T1 | {"objective.mask_void": False},
    ),
    # Equal to seg_only up to rounding, see `optim.update_segmenter`.
    "head_rate4": Cell(
        "T = 1, score layers' rate × 4, without D",
        _SUPERVISED | {"optimizer.head_rate": 4.0},
    ),
    "label_smoothing": Cell(
        "Label smoothing 0.1, without D",
        _SUPERVISED | {"objective.label_smoothing": 0.1},
    ),
    "dropout0": Cell("No dropout, without D", _SUPERVISED | {"model.dropout": 0.0}),
    "dropout0.5": Cell("Dropout 0.5, without D", _SUPERVISED | {"model.dropout": 0.5}),
    "drop_connect": Cell(
        "DropConnect 0.5 in place of dropout, without D",
        _SUPERVISED | {"model.dropout": 0.0, "model.drop_connect": 0.5},
    ),
    "l1": Cell("L1 penalty 1e-6, without D", _SUPERVISED | {"optimizer.l1": 1e-6}),
    **{
        f"weights_{name}": Cell(
            f"Class weights: {title}, without D",
            _SUPERVISED | {"objective.class_weights": name},
        )
        for name, title in (
            ("inverse", "inverse frequency"),
            ("median", "median frequency"),
            ("effective", "effective number"),
        )
    },
    "ohem": Cell(
        "The hardest quarter of the pixels, without D",
        _SUPERVISED | {"objective.hard_pixels": 0.25},
    ),
    "cosine_t": Cell(
        "T_G from 0.5 to 1 by a cosine, without D",
        _SUPERVISED
        | {
            "objective.temperature_g": 0.5,
            "objective.temperature_schedule": "cosine",
            "objective.temperature_end": 1.0,
        },
    ),
    **{
        f"learning_d_alpha{alpha:g}": Cell(
            f"D with learning rate 1e-4, α = {alpha:g}",
            _LEARNING_D | {"objective.alpha": alpha},
        )
        for alpha in (0.01, 0.05, 0.2)
    },
    # At the learning rate of the paper, D does not learn what to make of X.
    "real_smoothed": Cell(
        "D with learning rate 1e-4, X with the values of p",
        _LEARNING_D | {"objective.real": "matched"},
    ),
    "adv_dcgan": Cell(
        "Adversary dcgan (not saturating)",
        _LEARNING_D | {"objective.adversary": "dcgan"},
    ),
    "adv_minimax": Cell(
        "Adversary minimax (saturating)",
        _LEARNING_D | {"objective.adversary": "minimax"},
    ),
    "adv_hinge": Cell(
        "Adversary hinge, D with spectral normalization",
        _LEARNING_D
        | {"objective.adversary": "hinge", "model.discriminator": "dcgan_sn"},
    ),
    "adv_wgan": Cell(
        "Adversary wgan, weight clipping",
        _WGAN
        | {
            "objective.adversary": "wgan",
            "optimizer.discriminator": "rmsprop",
            "optimizer.learning_rate_d": 5e-5,
        },
    ),
    "adv_wgan_gp": Cell("Adversary wgan_gp", _WGAN),
    "d_sn": Cell(
        "lsgan, D with spectral normalization",
        _LEARNING_D | {"model.discriminator": "dcgan_sn"},
    ),
    "d_fcn": Cell(
        "Adversary dcgan, a confidence per pixel",
        _LEARNING_D | {"objective.adversary": "dcgan", "model.discriminator": "fcn"},
    ),
    "d_conditional": Cell(
        "lsgan, D sees the image", _LEARNING_D | {"objective.conditional": True}
    ),
    **{
        f"t{temperature:g}_rate{factor:g}": Cell(
            f"T = {temperature:g}, learning rate × {factor:g}, without D",
            _SUPERVISED
            | {
                "objective.temperature_seg": None if temperature == 1 else temperature,
                "optimizer.learning_rate_g": Times(factor),
            },
        )
        for temperature in _GRID_TEMPERATURES
        for factor in _GRID_RATES
    },
    **{
        f"{name}_rate{factor:g}": Cell(
            f"{title}, learning rate × {factor:g}",
            _T1
            | {
                "objective.temperature_g": temperature,
                "optimizer.learning_rate_g": Times(factor),
            },
        )
        for name, title, temperature in (
            ("adversarial", "Adversarial (T = 1)", 1.0),
            ("tg0.5", "T_G = 0.5", 0.5),
        )
        for factor in _GRID_RATES
    },
    **label_cells.CELLS,
}

TABLES = {
    "1": Table(
        "Table 1: λ, without D", ("lambda0", "lambda1e-4", "lambda2e-4", "lambda5e-4")
    ),
    "2": Table("Table 2: T_D (T_G = 1)", ("baseline", "adversarial", "td0.5", "td2")),
    "3": Table("Table 3: T_G (T_D = 1)", ("baseline", "adversarial", "tg0.5", "tg2")),
    "4": Table("Table 4: cost of the discriminator", ("baseline", "adversarial")),
    "controls": Table(
        "Controls",
        (
            "baseline",
            "adversarial",
            "tg0.5",
            "seg_only",
            "adv_only",
            "rate_matched",
            "frozen_d",
            "learning_d",
            "void_shown",
        ),
    ),
    "discriminator": Table(
        "What D does",
        (
            "baseline",
            "adversarial",
            "frozen_d",
            "learning_d_alpha0.01",
            "learning_d_alpha0.05",
            "learning_d_alpha0.2",
            "real_smoothed",
        ),
    ),
    "adversaries": Table(
        "Adversarial objectives and discriminators",
        (
            "baseline",
            "learning_d",
            "adv_dcgan",
            "adv_minimax",
            "adv_hinge",
            "adv_wgan",
            "adv_wgan_gp",
            "d_sn",
            "d_fcn",
            "d_conditional",
            "real_smoothed",
        ),
    ),
    "regularizers": Table(
        "Other regularizers, without D",
        (
            "baseline",
            "seg_only",
            "head_rate4",
            "label_smoothing",
            "lambda5e-4",
            "l1",
            "dropout0",
            "dropout0.5",
            "drop_connect",
            "weights_inverse",
            "weights_median",
            "weights_effective",
            "ohem",
            "cosine_t",
        ),
    ),
    "grid": Table(
        "T × learning rate, without D",
        (
            "baseline",
            *(f"t{t:g}_rate{f:g}" for t in _GRID_TEMPERATURES for f in _GRID_RATES),
        ),
    ),
    "rates": Table(
        "Learning rate, with D",
        (
            "adversarial",
            *(f"{x}_rate{f:g}" for x in ("adversarial", "tg0.5") for f in _GRID_RATES),
        ),
    ),
    **label_cells.TABLES,
}

CONTRASTS = (
    Contrast("Does a discriminator help at T = 1?", "adversarial", "baseline"),
    Contrast("Does T_G = 0.5 help with a discriminator?", "tg0.5", "adversarial"),
    Contrast("Does T_G = 0.5 help without a discriminator?", "seg_only", "baseline"),
    Contrast("Does a discriminator help at T_G = 0.5?", "tg0.5", "seg_only"),
    Contrast(
        "Is T_G = 0.5 better than twice the learning rate?", "tg0.5", "rate_matched"
    ),
    Contrast("Does T_G = 0.5 help on L_adv only?", "adv_only", "adversarial"),
    Contrast("Does training D have an effect?", "adversarial", "frozen_d"),
    Contrast("Does a higher learning rate of D help?", "learning_d", "adversarial"),
    Contrast("Does omitting void masking have an effect?", "void_shown", "adversarial"),
    Contrast(
        "Is T_G = 0.5 on L_seg four times the rate of the score layers?",
        "seg_only",
        "head_rate4",
    ),
    Contrast("Does label smoothing help?", "label_smoothing", "baseline"),
    Contrast("Does weight decay help?", "lambda5e-4", "baseline"),
    Contrast("Does an L1 penalty help?", "l1", "baseline"),
    Contrast("Does dropout help?", "dropout0.5", "dropout0"),
    Contrast("Does DropConnect help?", "drop_connect", "dropout0"),
    Contrast("Do weights by inverse frequency help?", "weights_inverse", "baseline"),
    Contrast("Do weights by median frequency help?", "weights_median", "baseline"),
    Contrast("Do weights by effective number help?", "weights_effective", "baseline"),
    Contrast("Does training on the hardest pixels help?", "ohem", "baseline"),
    Contrast("Does a D that learns help?", "learning_d", "baseline"),
    Contrast("Does it learn more than sharpness?", "real_smoothed", "learning_d"),
    Contrast("Is dcgan better than lsgan?", "adv_dcgan", "learning_d"),
    Contrast("Does saturation harm?", "adv_minimax", "adv_dcgan"),
    Contrast("Is wgan_gp better than wgan?", "adv_wgan_gp", "adv_wgan"),
    Contrast("Does spectral normalization help?", "d_sn", "learning_d"),
    Contrast("Is the hinge better than lsgan?", "adv_hinge", "d_sn"),
    Contrast("Does a confidence per pixel help?", "d_fcn", "adv_dcgan"),
    Contrast("Does it help if D sees the image?", "d_conditional", "learning_d"),
    *label_cells.CONTRASTS,
)
"""The planned comparisons, for the cells that a sweep has."""


def configure(
    config: ConfigDict, cell: str, *, seed: int, rates: Mapping[str, float] = NO_RATES
) -> ConfigDict:
    """Return the config of one run: the sweep's, with overrides of the cell and seed.

    Args:
        config: The config of the sweep.
        cell: A key of `CELLS`.
        seed: The seed of the run.
        rates: Factors on the segmenter's learning rate, by cell; 1 for other cells.
    """
    result = config.copy_and_resolve_references()
    overrides = _overrides(cell, rates)
    flat = {name: _value(config, overrides, name) for name in overrides}
    result.update_from_flattened_dict(flat)
    result.seed = seed
    return result


def trained_as(
    config: ConfigDict, cell: str, rates: Mapping[str, float] = NO_RATES
) -> str:
    """Return the first cell with the same config; equal cells are trained only once.

    If the weight decay of the config is 0, for example, `lambda0` is the baseline.
    """
    own = _overrides(cell, rates)

    def same(other: str) -> bool:
        its = _overrides(other, rates)
        return all(
            _value(config, own, name) == _value(config, its, name)
            for name in own.keys() | its.keys()
        )

    return next(filter(same, CELLS))


def choose(
    config: ConfigDict, tables: Sequence[str], rates: Mapping[str, float] = NO_RATES
) -> tuple[str, ...]:
    """Return the cells to train for these tables, each once, in the tables' order.

    Raises:
        ValueError: If a table or a cell of `rates` does not exist, or
            `objective.alpha` of the config is 0.
    """
    for table in tables:
        if table not in TABLES:
            raise ValueError(
                f"--table: {table!r} is not one of {', '.join(TABLES)}; separate "
                "several tables by commas"
            )
    for cell in rates:
        if cell not in CELLS:
            raise ValueError(
                f"--rates: {cell!r} is not a cell; choose from {', '.join(CELLS)}"
            )
    if not config.objective.alpha:
        raise ValueError(
            "objective.alpha: 0 in the config of the sweep would leave the adversarial "
            "cells without an adversary; set the α of these cells (the baseline always "
            "has 0)"
        )
    cells = (cell for table in tables for cell in TABLES[table].cells)
    return tuple(dict.fromkeys(trained_as(config, cell, rates) for cell in cells))


def _overrides(cell: str, rates: Mapping[str, float]) -> Overrides:
    """Return the overrides of a cell, its rate multiplied by its factor of `rates`."""
    overrides = CELLS[cell].overrides
    if cell not in rates:
        return overrides
    before = overrides.get(_RATE, Times(1.0))
    return overrides | {_RATE: Times(before.factor * rates[cell])}


def _value(config: ConfigDict, overrides: Overrides, name: str) -> Value:
    """Return the value of a field after the overrides."""
    section, field = name.split(".")
    own = config[section][field]
    value = overrides.get(name, own)
    return own * value.factor if isinstance(value, Times) else value
