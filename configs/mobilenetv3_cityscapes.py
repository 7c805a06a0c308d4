r"""MobileNetV3-Large with LR-ASPP (Howard et al. 2019), Cityscapes.

Run:      python -m tempseg_jax.main --config=configs/mobilenetv3_cityscapes.py \
              --workdir=runs/mobilenetv3_cityscapes --config.data.manual_dir=CITYSCAPES
Measured: not yet (needs the whole dataset and a GPU)
"""

from ml_collections import ConfigDict

from configs import resnet50_cityscapes


def get_config() -> ConfigDict:
    """Return `resnet50_cityscapes` with a network of 3.2 M parameters."""
    config = resnet50_cityscapes.get_config()
    config.model.name = "mobilenet_v3_large"
    config.model.head = "lraspp"
    config.model.pretrained = "mobilenetv3_large_100.ra_in1k"
    return config
