"""The cells of the table `labels`: few labels, and what unlabeled images add.

L_adv and L_semi have the weights, the threshold and the D of Hung et al. 2018. All
cells take equally many steps: an epoch counts the unlabeled images too.
"""

from tempseg_jax.sweep.cells.kinds import SUPERVISED, Cell, Contrast, Table

_EIGHTH = SUPERVISED | {
    "data.labeled_fraction": 1 / 8,
    "semi.alpha": 0.0,
    "semi.weight": 0.0,
}
_ADVERSARIAL = _EIGHTH | {
    "model.discriminator": "fcn",
    "objective.adversary": "dcgan",
    "objective.alpha": 0.01,
    "optimizer.learning_rate_d": 1e-4,
    "semi.alpha": 0.001,
}

CELLS = {
    "labels_eighth": Cell("1/8 of the labels, without D", _EIGHTH),
    "labels_adv": Cell("1/8 of the labels, L_adv on all images", _ADVERSARIAL),
    "labels_semi": Cell(
        "1/8 of the labels, L_adv on all images and L_semi",
        _ADVERSARIAL | {"semi.weight": 0.1, "semi.threshold": 0.2, "semi.start": 0.25},
    ),
    "labels_all": Cell(
        "All labels, without D", _EIGHTH | {"data.labeled_fraction": 1.0}
    ),
}

TABLES = {
    "labels": Table(
        "Images without labels",
        ("labels_eighth", "labels_adv", "labels_semi", "labels_all"),
    )
}

CONTRASTS = (
    Contrast("Does L_adv on all images help?", "labels_adv", "labels_eighth"),
    Contrast("Does L_semi help beside it?", "labels_semi", "labels_adv"),
    Contrast("Do images without labels help?", "labels_semi", "labels_eighth"),
    Contrast("Would the other labels help?", "labels_all", "labels_eighth"),
)
