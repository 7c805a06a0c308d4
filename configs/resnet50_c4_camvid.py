r"""ResNet-50 without stage 5, CamVid at half resolution: minutes on a CPU.

Run:      python -m tempseg_jax.main --config=configs/resnet50_c4_camvid.py \
              --workdir=runs/resnet50_c4_camvid --config.data.manual_dir=CAMVID
Measured: not with these settings; with another learning rate, 23 or 92 of the images
          and ten seeds in docs/results.md, which has the commands
"""

from ml_collections import ConfigDict

from configs import resnet50_camvid


def get_config() -> ConfigDict:
    """Return `resnet50_camvid` through stage 4, on small images and crops."""
    config = resnet50_camvid.get_config()
    config.steps = 600
    config.precision = "float32"  # as fast as bfloat16 on a CPU, or faster
    config.data.options = ConfigDict({**config.data.options, "downscale": 2})
    config.data.crop_size = 160
    config.data.num_workers = 2
    config.model.name = "resnet50_c4"
    config.evaluate_every_epochs = 5.0
    return config
