"""`fcn_voc` with the Wasserstein loss and gradient penalty (Gulrajani et al. 2017).

Run:      python -m tempseg_jax.main --config=configs/wgan_gp_voc.py --workdir=runs/wgan
Measured: not yet (needs the whole dataset and a GPU)
"""

from ml_collections import ConfigDict

from configs import fcn_voc


def get_config() -> ConfigDict:
    """Return `fcn_voc` with the critic of WGAN-GP and its optimizer."""
    config = fcn_voc.get_config()
    config.model.discriminator = "dcgan_ln"
    config.objective.adversary = "wgan_gp"
    config.objective.critic_steps = 5
    config.optimizer.discriminator = "adam_no_momentum"
    config.optimizer.learning_rate_d = 1e-4
    return config
