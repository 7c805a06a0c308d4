r"""ResNet-50, CamVid (SegNet's split: 367 train, 101 val, 233 test at 480x360).

Run:      python -m tempseg_jax.main --config=configs/resnet50_camvid.py \
              --workdir=runs/resnet50_camvid --config.data.manual_dir=CAMVID
Measured: not with these settings; with 160 small steps on a CPU 56.6 pAcc and 18.9 mIoU
          on val (README.md has the command)
"""

from ml_collections import ConfigDict

from configs import fcn_camvid


def get_config() -> ConfigDict:
    """Return `fcn_camvid` with ResNet-50 and its learning rate for D."""
    config = fcn_camvid.get_config()
    config.model.name = "resnet50"
    config.model.pretrained = "keras_resnet50"
    config.optimizer.learning_rate_d = 5e-8
    return config
