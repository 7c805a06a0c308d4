"""Cells of the table `regularizers`, to compare with a temperature, without D."""

from tempseg_jax.sweep.cells.kinds import SUPERVISED, Cell, Contrast, Table

CELLS = {
    # Equal to seg_only up to rounding, see `optim.update_segmenter`.
    "head_rate4": Cell(
        "T = 1, score layers' rate × 4, without D",
        SUPERVISED | {"optimizer.head_rate": 4.0},
    ),
    "label_smoothing": Cell(
        "Label smoothing 0.1, without D",
        SUPERVISED | {"objective.label_smoothing": 0.1},
    ),
    "dropout0": Cell("No dropout, without D", SUPERVISED | {"model.dropout": 0.0}),
    "dropout0.5": Cell("Dropout 0.5, without D", SUPERVISED | {"model.dropout": 0.5}),
    "drop_connect": Cell(
        "DropConnect 0.5 in place of dropout, without D",
        SUPERVISED | {"model.dropout": 0.0, "model.drop_connect": 0.5},
    ),
    "l1": Cell("L1 penalty 1e-7, without D", SUPERVISED | {"optimizer.l1": 1e-7}),
    **{
        f"weights_{name}": Cell(
            f"Class weights: {title}, without D",
            SUPERVISED | {"objective.class_weights": name},
        )
        for name, title in (
            ("inverse", "inverse frequency"),
            ("median", "median frequency"),
            ("effective", "effective number"),
        )
    },
    "ohem": Cell(
        "The hardest quarter of the pixels, without D",
        SUPERVISED | {"objective.hard_pixels": 0.25},
    ),
    "cosine_t": Cell(
        "T_G from 0.5 to 1 by a cosine, without D",
        SUPERVISED
        | {
            "objective.temperature_g": 0.5,
            "objective.temperature_schedule": "cosine",
            "objective.temperature_end": 1.0,
        },
    ),
}

TABLES = {
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
}

CONTRASTS = (
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
)
