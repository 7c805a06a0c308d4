"""`fcn_voc` with labels for an eighth of the images (Hung et al. 2018).

Run:      python -m tempseg_jax.main --config=configs/semi_voc.py --workdir=runs/semi
Measured: not yet (needs the whole dataset and a GPU)

The weights, the threshold, D, its learning rate, the batches and the length are those
of that paper: 20,000 steps, of which L_semi counts in the last 15,000. The segmenter,
its optimizer, the crops and the temperatures are those of `fcn_voc`.
"""

from ml_collections import ConfigDict

from configs import fcn_voc


def get_config() -> ConfigDict:
    """Return `fcn_voc` with a D that scores every pixel, and unlabeled images."""
    config = without_labels(fcn_voc.get_config())
    config.steps = 20_000
    config.data.batch_size = 10  # and 10 without labels
    return config


def without_labels(config: ConfigDict) -> ConfigDict:
    """Set the labels, D, and the terms for unlabeled images of Hung et al."""
    config.data.labeled_fraction = 1 / 8
    config.model.discriminator = "fcn"
    config.objective.adversary = "dcgan"
    config.objective.alpha = 0.01
    config.semi.alpha = 0.001
    config.semi.weight = 0.1
    config.optimizer.learning_rate_d = 1e-4
    return config
