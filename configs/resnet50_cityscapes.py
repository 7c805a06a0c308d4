r"""ResNet-50, Cityscapes (paper: tables 1 to 4); the one case that gains from λ.

Run:      python -m tempseg_jax.main --config=configs/resnet50_cityscapes.py \
              --workdir=runs/resnet50_cityscapes --config.data.manual_dir=CITYSCAPES
Paper:    93.02 pAcc, 60.75 mIoU on val
Measured: not yet (needs the whole dataset and a GPU)
"""

from ml_collections import ConfigDict

from configs import fcn_cityscapes


def get_config() -> ConfigDict:
    """Return `fcn_cityscapes` with ResNet-50, its learning rate for D, α and λ."""
    config = fcn_cityscapes.get_config()
    config.model.name = "resnet50"
    config.model.pretrained = "keras_resnet50"
    config.objective.alpha = 0.05
    config.optimizer.learning_rate_d = 5e-8
    config.optimizer.weight_decay = 5e-4
    return config
