r"""FCN-8s on VGG-16, Cityscapes (paper: tables 1 to 4).

Run:      python -m tempseg_jax.main --config=configs/fcn_cityscapes.py \
              --workdir=runs/fcn_cityscapes --config.data.manual_dir=CITYSCAPES
Paper:    94.36 pAcc, 67.42 mIoU on val
Measured: not yet (needs the whole dataset and a GPU)
"""

from ml_collections import ConfigDict

from configs import fcn_voc


def get_config() -> ConfigDict:
    """Return `fcn_voc` on Cityscapes, with the paper's α for it."""
    config = fcn_voc.get_config()
    config.data.name = "cityscapes"  # manual_dir: the two zips, or unpacked
    config.data.train_split = "train"
    config.data.tiles = True  # written once, in less space than the PNG files
    config.objective.alpha = 0.1
    config.eval_batch_size = 2  # of 2048x1024 pixels
    return config
