"""Cells of the tables `controls` and `discriminator`: the effects of T_G and of D."""

from tempseg_jax.sweep.cells.kinds import (
    LEARNING_D,
    SUPERVISED,
    T1,
    Cell,
    Contrast,
    Table,
    Times,
)

CELLS = {
    # Separates the effect of T_G in L_seg from that in L_adv.
    "seg_only": Cell(
        "T_G = 0.5 on L_seg, without D",
        SUPERVISED | {"objective.temperature_seg": 0.5},
    ),
    "adv_only": Cell(
        "T_G = 0.5 on L_adv only",
        T1 | {"objective.temperature_adv": 0.5},
    ),
    # The gradient of a loss of z / T is 1 / T times as large at equal probabilities.
    "rate_matched": Cell(
        "T = 1, learning rate × 2",
        T1 | {"optimizer.learning_rate_g": Times(2.0)},
    ),
    "frozen_d": Cell(
        "Frozen D",
        T1 | {"optimizer.learning_rate_d": 0.0},
    ),
    "learning_d": Cell(
        "D with learning rate 1e-4",
        LEARNING_D,
    ),
    "void_shown": Cell(
        "Without void masking",
        T1 | {"objective.mask_void": False},
    ),
    **{
        f"learning_d_alpha{alpha:g}": Cell(
            f"D with learning rate 1e-4, α = {alpha:g}",
            LEARNING_D | {"objective.alpha": alpha},
        )
        for alpha in (0.01, 0.05, 0.2)
    },
    # At the learning rate of the paper, D does not learn what to make of X.
    "real_smoothed": Cell(
        "D with learning rate 1e-4, X with the values of p",
        LEARNING_D | {"objective.real": "matched"},
    ),
}

TABLES = {
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
}

CONTRASTS = (
    Contrast("Do D and T_G = 0.5 help together?", "tg0.5", "baseline"),
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
)
