"""FCN-8s on VGG-16, PASCAL VOC 2012 + SBD (paper: tables 1 to 4).

Run:      python -m tempseg_jax.main --config=configs/fcn_voc.py --workdir=runs/fcn_voc
Paper:    92.90 pAcc, 69.82 mIoU on val
Measured: not yet (needs the whole dataset and a GPU)

This config has every field. The others derive from it, directly or through another one,
and set only the fields that differ; `--mode=describe` prints all fields of a config.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Return T_G = 0.5 and T_D = 1, the best setting of the paper (table 3)."""
    config = ConfigDict()
    config.seed = 0  # parameters, order of the images, augmentation and dropout
    config.epochs = 50  # passes over the training images
    config.steps = config_dict.placeholder(int)  # number of steps; None: from epochs
    config.accumulate = 1  # micro-batches per step: gradient accumulation
    config.precision = "bfloat16"  # or float16, float32

    config.data = ConfigDict()
    config.data.name = "voc"  # or cityscapes, folder (your own images), scenes
    config.data.manual_dir = config_dict.placeholder(str)  # archives or VOCdevkit
    config.data.data_dir = config_dict.placeholder(str)  # else ~/tensorflow_datasets
    config.data.options = ConfigDict({"allow_missing": False})  # docs/data.md
    config.data.train_split = "train_aug"  # VOC's train and SBD: 10,582 images
    config.data.train_fraction = 1.0  # fraction of the images of train_split to use
    config.data.subset_seed = 0  # chooses them; smaller fractions are nested in larger
    config.data.labeled_fraction = 1.0  # fraction of these whose labels are used
    config.data.labeled_seed = 0  # chooses them; smaller fractions are nested in larger
    config.data.unlabeled_dir = ""  # a folder of images; "": the others of train_split
    config.data.unlabeled_batch_size = config_dict.placeholder(int)  # else batch_size
    config.data.val_split = "val"  # chooses the best checkpoint
    config.data.batch_size = 16  # images per step, over all devices and processes
    config.data.crop_size = 416  # pixels, height and width
    config.data.min_scale = 0.5  # random scaling: smallest factor
    config.data.max_scale = 2.0  # random scaling: largest factor
    config.data.cat_max_ratio = 1.0  # largest share of one class in a crop; 1: any
    config.data.photometric = False  # random brightness, contrast, saturation, hue
    config.data.num_workers = 8  # threads that decode and augment
    config.data.cache_bytes = 0  # of decoded images in memory, per process; 0: none
    config.data.tiles = False  # store large images as tiles; a crop decodes a few
    config.data.on_error = "raise"  # for unreadable files; or skip

    config.model = ConfigDict()
    config.model.name = "fcn8s"  # or resnet50, resnet101, ...: docs/methods.md
    config.model.head = "score"  # or fcn, aspp, deeplabv3plus, lraspp (not FCN-8s)
    config.model.output_stride = config_dict.placeholder(int)  # of ResNets: 32, 16, 8
    config.model.width = 1.0  # factor on the segmenter's channels
    config.model.remat = False  # recompute activations: less memory, more time
    config.model.pretrained = "vgg16.tv_in1k"  # or a file, or a run; "": none
    config.model.pretrained_missing = ()  # prefixes of tensors that the file may lack
    config.model.freeze_batch_norm = "none"  # or statistics, all (scale and shift too)
    config.model.dropout = config_dict.placeholder(float)  # rate; FCN-8s: else 0.5
    config.model.drop_connect = 0.0  # DropConnect rate of fc6, fc7, score layers
    config.model.discriminator = "dcgan"  # or dcgan_sn, dcgan_ln, fcn

    config.objective = ConfigDict()
    config.objective.adversary = "lsgan"  # dcgan, minimax, hinge, wgan, wgan_gp
    config.objective.critic_steps = 1  # updates of D per step
    config.objective.alpha = 0.05  # weight of L_adv; 0: supervised, no discriminator
    config.objective.temperature_g = 0.5  # T_G: divides the logits in the losses of G
    config.objective.temperature_d = 1.0  # T_D: divides the logits in the loss of D
    config.objective.temperature_seg = config_dict.placeholder(float)  # L_seg; else T_G
    config.objective.temperature_adv = config_dict.placeholder(float)  # L_adv; else T_G
    config.objective.mask_void = True  # void pixels are zero in the input of D
    config.objective.conditional = False  # D sees the image too
    config.objective.real = "one_hot"  # X in L_D; or matched, teacher: docs/methods.md
    config.objective.auxiliary = 0.0  # weight of the loss of a head on stage 4; 0: none
    config.objective.label_smoothing = 0.0  # ε: uniform part of the targets of L_seg
    config.objective.class_weights = "none"  # or inverse, median, effective, given
    config.objective.given_class_weights = ()  # for "given": one number per class
    config.objective.hard_pixels = 1.0  # OHEM: fraction of the pixels in L_seg; 1: all
    config.objective.temperature_schedule = "constant"  # of T_G; or linear, cosine
    config.objective.temperature_end = 1.0  # T_G at the end of the schedule

    config.semi = ConfigDict()  # terms of L_G on unlabeled images
    config.semi.alpha = 0.0  # weight of L_adv on them
    config.semi.weight = 0.0  # of L_semi: cross-entropy to pseudo-labels
    config.semi.threshold = 0.2  # pseudo-labels need a higher confidence by D
    config.semi.start = 0.25  # fraction of the steps before L_semi is used

    config.distill = ConfigDict()
    config.distill.teacher = ""  # workdir of a trained run with the same classes
    config.distill.weight = 1.0  # of T² KL(teacher ‖ segmenter), mean over pixels
    config.distill.temperature = 1.0  # T: divides both logits
    config.distill.pairwise = 0.0  # weight of the affinities between positions

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate_g = 5e-3  # of the segmenter: SGD
    config.optimizer.head_rate = 1.0  # factor on learning_rate_g for the score layers
    config.optimizer.learning_rate_d = 1e-7  # of the discriminator
    config.optimizer.discriminator = "adam"  # or adam_no_momentum, rmsprop
    config.optimizer.momentum = 0.9  # of SGD
    config.optimizer.weight_decay = 0.0  # λ (eq. 1), of the segmenter's kernels
    config.optimizer.l1 = 0.0  # weight of Σ |W| of the same kernels
    config.optimizer.warmup_epochs = 5.0  # linear warm-up of both learning rates
    config.optimizer.cycles = 1  # cosine decays to 0; above 1: with restarts

    config.writer = ConfigDict()
    config.writer.wandb = False  # log to Weights & Biases too: pip install wandb

    config.log_every_steps = 20  # to metrics.jsonl, TensorBoard and the terminal
    config.evaluate_every_epochs = 1.0  # 0: never
    config.evaluate_every_steps = config_dict.placeholder(int)  # None: by epochs
    config.evaluate_images = 0  # of val_split, evenly spaced, in training; 0: all
    config.save_every_steps = 1000  # besides one at every evaluation
    config.eval_batch_size = 8  # images per process, over its devices
    return config.lock()  # a config that changes this one cannot misspell a field
