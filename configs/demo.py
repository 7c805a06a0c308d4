"""A narrow FCN-8s on generated scenes: the whole system in minutes on a CPU.

Run:      python -m tempseg_jax.main --config=configs/demo.py --workdir=runs/demo
Measured: 96.3 pAcc, 86.9 mIoU on val in minutes on two cores (README.md)
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """T_G = 0.5, T_D = 1: the paper's best cell (table 3)."""
    config = ConfigDict()
    config.seed = 0
    config.epochs = 4
    config.steps = config_dict.placeholder(int)  # instead of what the epochs give
    config.accumulate = 1  # parts that a batch is played in, to save memory
    config.precision = "float32"

    config.data = ConfigDict()
    config.data.name = "scenes"
    config.data.manual_dir = config_dict.placeholder(str)  # none: it is generated
    config.data.data_dir = config_dict.placeholder(str)  # ~/tensorflow_datasets
    config.data.options = ConfigDict()
    config.data.train_split = "train"
    config.data.val_split = "val"
    config.data.batch_size = 16
    config.data.crop_size = 128
    config.data.min_scale = 0.5
    config.data.max_scale = 2.0
    config.data.cat_max_ratio = 1.0  # below 1: redraw crops that one class fills
    config.data.photometric = False
    config.data.num_workers = 2  # threads
    config.data.cache_bytes = 2**28  # of memory, for decoded images
    config.data.on_error = "raise"  # or skip

    config.model = ConfigDict()
    config.model.name = "fcn8s"
    config.model.discriminator = "dcgan"
    config.model.width = 0.25
    config.model.remat = False
    config.model.pretrained = ""
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
    config.optimizer.learning_rate_g = 0.02
    config.optimizer.learning_rate_d = 1e-7
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 0.0
    config.optimizer.warmup_epochs = 1
    config.optimizer.cycles = 1

    config.log_every_steps = 10
    config.evaluate_every_epochs = 1.0  # 0: never
    config.save_every_steps = 100
    config.eval_batch_size = 16
    return config
