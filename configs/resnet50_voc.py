r"""ResNet-50, PASCAL VOC 2012 + SBD (paper: tables 1 to 4).

Run:      python -m tempseg_jax.main --config=configs/resnet50_voc.py \
              --workdir=runs/resnet50_voc
Paper:    90.88 pAcc, 62.54 mIoU on val
Measured: not yet (needs the whole dataset and a GPU)
"""

from ml_collections import ConfigDict

from configs import fcn_voc


def get_config() -> ConfigDict:
    """Return `fcn_voc` with ResNet-50 and its learning rate for D."""
    config = fcn_voc.get_config()
    config.model.name = "resnet50"
    config.model.pretrained = "keras_resnet50"
    config.optimizer.learning_rate_d = 5e-8
    return config
