r"""DeepLabV3+ on ResNet-50 (Chen et al. 2018), Cityscapes.

Run:      python -m tempseg_jax.main --config=configs/deeplabv3plus_cityscapes.py \
              --workdir=runs/deeplabv3plus_cityscapes \
              --config.data.manual_dir=CITYSCAPES
Measured: not yet (needs the whole dataset and a GPU)
"""

from ml_collections import ConfigDict

from configs import deeplabv3plus_voc, resnet50_cityscapes


def get_config() -> ConfigDict:
    """Return `resnet50_cityscapes` with a decoder and an auxiliary loss."""
    return deeplabv3plus_voc.with_decoder(resnet50_cityscapes.get_config())
