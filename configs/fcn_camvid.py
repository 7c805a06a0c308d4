r"""FCN-8s on VGG-16, CamVid (SegNet's split: 367 train, 101 val, 233 test).

Run:      python -m tempseg_jax.main --config=configs/fcn_camvid.py \
              --workdir=runs/fcn_camvid --config.data.manual_dir=CAMVID
Measured: not yet (needs a GPU); published FCN-8s: 57.0 mIoU on test
"""

from ml_collections import ConfigDict

from configs import fcn_voc

CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
"""Names and RGB colors, in the order of the labels; 11 is void."""


def get_config() -> ConfigDict:
    """Return `fcn_voc` on CamVid, with smaller crops and batches for its images."""
    config = fcn_voc.get_config()
    config.data.name = "folder"  # manual_dir: {train,val,test}{,annot}/
    config.data.options = ConfigDict(
        {
            "void_index": len(CLASSES),
            "class_names": tuple(CLASSES),
            "class_colors": tuple(CLASSES.values()),
        }
    )
    config.data.train_split = "train"
    config.data.batch_size = 8
    config.data.crop_size = 352
    config.data.cache_bytes = 2**30
    config.save_every_steps = 500
    return config
