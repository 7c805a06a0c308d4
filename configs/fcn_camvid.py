r"""FCN-8s on VGG-16, CamVid (SegNet's split: 367 train, 101 val, 233 test).

Run:      python -m tempseg_jax.main --config=configs/fcn_camvid.py \
              --workdir=runs/fcn_camvid --config.data.manual_dir=CAMVID
Measured: not yet (needs a GPU); published FCN-8s: 57.0 mIoU on test
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """T_G = 0.5, T_D = 1: the paper's best cell (table 3)."""
    config = ConfigDict()
    config.seed = 0
    config.epochs = 50
    config.steps = config_dict.placeholder(int)  # instead of what the epochs give
    config.accumulate = 1  # parts that a batch is played in, to save memory
    config.precision = "bfloat16"  # or float16, float32

    config.data = ConfigDict()
    config.data.name = "folder"
    config.data.manual_dir = config_dict.placeholder(str)  # {train,val,test}{,annot}/
    config.data.data_dir = config_dict.placeholder(str)  # ~/tensorflow_datasets
    config.data.options = ConfigDict(
        {
            "void_index": 11,
            "class_names": (
                "sky",
                "building",
                "pole",
                "road",
                "pavement",
                "tree",
                "sign symbol",
                "fence",
                "car",
                "pedestrian",
                "bicyclist",
            ),
            "class_colors": (
                (128, 128, 128),
                (128, 0, 0),
                (192, 192, 128),
                (128, 64, 128),
                (60, 40, 222),
                (128, 128, 0),
                (192, 128, 128),
                (64, 64, 128),
                (64, 0, 128),
                (64, 64, 0),
                (0, 128, 192),
            ),
        }
    )
    config.data.train_split = "train"
    config.data.val_split = "val"
    config.data.batch_size = 8
    config.data.crop_size = 352
    config.data.min_scale = 0.5
    config.data.max_scale = 2.0
    config.data.cat_max_ratio = 1.0  # below 1: redraw crops that one class fills
    config.data.photometric = False
    config.data.num_workers = 8  # threads
    config.data.cache_bytes = 2**30  # of memory, for decoded images
    config.data.on_error = "raise"  # or skip

    config.model = ConfigDict()
    config.model.name = "fcn8s"
    config.model.discriminator = "dcgan"
    config.model.width = 1.0
    config.model.remat = False
    config.model.pretrained = "vgg16.tv_in1k"
    config.model.pretrained_missing = ()

    config.objective = ConfigDict()
    config.objective.adversary = "lsgan"  # or dcgan (eq. 2)
    config.objective.critic_steps = 1  # updates of D a step
    config.objective.alpha = 0.05  # 0: supervised, without a discriminator
    config.objective.temperature_g = 0.5
    config.objective.temperature_d = 1.0
    config.objective.temperature_seg = config_dict.placeholder(float)  # else T_G
    config.objective.temperature_adv = config_dict.placeholder(float)  # else T_G
    config.objective.mask_void = True

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate_g = 5e-3
    config.optimizer.learning_rate_d = 1e-7
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 0.0
    config.optimizer.warmup_epochs = 5
    config.optimizer.cycles = 1

    config.log_every_steps = 20
    config.evaluate_every_epochs = 1.0  # 0: never
    config.save_every_steps = 500
    config.eval_batch_size = 8
    return config
