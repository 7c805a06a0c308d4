r"""DeepLabV3+ on ResNet-50 (Chen et al. 2018), Cityscapes.

Run:      python -m tempseg_jax.main --config=configs/deeplabv3plus_cityscapes.py \
              --workdir=runs/deeplabv3plus_cityscapes \
              --config.data.manual_dir=CITYSCAPES
Measured: not yet (needs the whole dataset and a GPU)
"""

from ml_collections import ConfigDict

from configs import resnet50_cityscapes


def get_config() -> ConfigDict:
    """Return `resnet50_cityscapes` with a decoder and an auxiliary loss."""
    config = resnet50_cityscapes.get_config()
    config.model.name = "resnet50_v15"
    config.model.head = "deeplabv3plus"
    config.model.output_stride = 16
    config.model.pretrained = "resnet50.tv_in1k"
    config.objective.auxiliary = 0.4
    return config
