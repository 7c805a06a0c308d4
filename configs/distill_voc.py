"""`resnet50_voc` that also learns from a trained FCN-8s (Liu et al. 2019).

Run:      python -m tempseg_jax.main --config=configs/distill_voc.py \
              --workdir=runs/distill_voc --config.distill.teacher=runs/fcn_voc
Measured: not yet (needs the whole dataset and a GPU)
"""

from ml_collections import ConfigDict

from configs import resnet50_voc


def get_config() -> ConfigDict:
    """Return `resnet50_voc` with the weights and the temperature of the paper."""
    config = resnet50_voc.get_config()
    config.distill.teacher = "runs/fcn_voc"
    config.distill.weight = 10.0
    config.distill.pairwise = 10.0
    return config
