"""Cells of the table `adversaries`: adversarial objectives and discriminators."""

from tempseg_jax.sweep.cells.kinds import LEARNING_D, Cell, Contrast, Table

# Every cell differs from this one, whatever adversary the config has.
_LSGAN = LEARNING_D | {
    "model.discriminator": "dcgan",
    "objective.adversary": "lsgan",
    "objective.conditional": False,
    "objective.critic_steps": 1,
    "objective.real": "one_hot",
    "optimizer.discriminator": "adam",
}
_WGAN = _LSGAN | {
    "model.discriminator": "dcgan_ln",
    "objective.adversary": "wgan_gp",
    "objective.critic_steps": 5,
    "optimizer.discriminator": "adam_no_momentum",
}

CELLS = {
    "adv_lsgan": Cell("Adversary lsgan", _LSGAN),
    "adv_dcgan": Cell(
        "Adversary dcgan (not saturating)",
        _LSGAN | {"objective.adversary": "dcgan"},
    ),
    "adv_minimax": Cell(
        "Adversary minimax (saturating)",
        _LSGAN | {"objective.adversary": "minimax"},
    ),
    "adv_hinge": Cell(
        "Adversary hinge, D with spectral normalization",
        _LSGAN | {"objective.adversary": "hinge", "model.discriminator": "dcgan_sn"},
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
        _LSGAN | {"model.discriminator": "dcgan_sn"},
    ),
    "d_fcn": Cell(
        "Adversary dcgan, a confidence per pixel",
        _LSGAN | {"objective.adversary": "dcgan", "model.discriminator": "fcn"},
    ),
    "d_conditional": Cell(
        "lsgan, D sees the image", _LSGAN | {"objective.conditional": True}
    ),
}

TABLES = {
    "adversaries": Table(
        "Adversarial objectives and discriminators",
        (
            "baseline",
            "adv_lsgan",
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
}

CONTRASTS = (
    Contrast("Does a D that learns help?", "learning_d", "baseline"),
    Contrast("Does it learn more than sharpness?", "real_smoothed", "learning_d"),
    Contrast("Is dcgan better than lsgan?", "adv_dcgan", "adv_lsgan"),
    Contrast("Does saturation harm?", "adv_minimax", "adv_dcgan"),
    Contrast("Is wgan_gp better than wgan?", "adv_wgan_gp", "adv_wgan"),
    Contrast("Does spectral normalization help?", "d_sn", "adv_lsgan"),
    Contrast("Is the hinge better than lsgan?", "adv_hinge", "d_sn"),
    Contrast("Does a confidence per pixel help?", "d_fcn", "adv_dcgan"),
    Contrast("Does it help if D sees the image?", "d_conditional", "adv_lsgan"),
)
