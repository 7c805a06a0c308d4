r"""DeepLabV3+ on ResNet-50 (Chen et al. 2018), PASCAL VOC 2012 + SBD.

Run:      python -m tempseg_jax.main --config=configs/deeplabv3plus_voc.py \
              --workdir=runs/deeplabv3plus_voc
Measured: not yet (needs the whole dataset and a GPU)
"""

from ml_collections import ConfigDict

from configs import resnet50_voc


def get_config() -> ConfigDict:
    """Return `resnet50_voc` with a decoder and an auxiliary loss."""
    return with_decoder(resnet50_voc.get_config())


def with_decoder(config: ConfigDict) -> ConfigDict:
    """Set the network, its weights, and the weight of the auxiliary loss."""
    config.model.name = "resnet50_v15"
    config.model.head = "deeplabv3plus"
    config.model.output_stride = 16
    config.model.pretrained = "resnet50.tv_in1k"
    config.objective.auxiliary = 0.4
    return config
