"""`demo` with labels for an eighth of the images: 64 of 512 generated scenes.

Run:      python -m tempseg_jax.main --config=configs/semi_demo.py \
              --workdir=runs/semi_demo
Measured: not yet
"""

from ml_collections import ConfigDict

from configs import demo


def get_config() -> ConfigDict:
    """Return `demo` with the fields of `semi_voc`, without its length."""
    config = demo.get_config()
    config.data.labeled_fraction = 1 / 8
    config.model.discriminator = "fcn"
    config.objective.adversary = "dcgan"
    config.objective.alpha = 0.01
    config.semi.alpha = 0.001
    config.semi.weight = 0.1
    config.optimizer.learning_rate_d = 1e-4
    return config
