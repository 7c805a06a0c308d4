"""The numbers of the paper's tables 1 to 4; each is a single run."""

from typing import NamedTuple

from ml_collections import ConfigDict


class Printed(NamedTuple):
    """One setting of tables 1 to 3, in percent."""

    pacc: float
    miou: float


class Cost(NamedTuple):
    """One row of table 4, measured on an RTX 2070 Super with 8 GB."""

    parameters: float  # millions
    parameters_d: float  # millions
    minutes: float  # per epoch, supervised
    minutes_adversarial: float  # per epoch

    @property
    def ratio(self) -> float:
        """Duration of an adversarial epoch relative to a supervised one."""
        return self.minutes_adversarial / self.minutes


_CELLS = ("baseline", "adversarial", "td0.5", "td2", "tg0.5", "tg2") + (
    "lambda0",
    "lambda1e-4",
    "lambda2e-4",
    "lambda5e-4",
)
_PRINTED = {
    "ResNet-50-V": "90.62/61.97 90.68/62.03 90.68/61.86 90.74/62.37 90.88/62.54 "
    "90.52/61.72 90.62/61.97 90.60/61.88 90.59/61.71 90.69/61.94",
    "ResNet-50-C": "92.85/60.35 92.83/60.16 92.64/59.35 92.83/60.17 93.02/60.75 "
    "92.70/60.22 92.50/58.57 92.47/58.57 92.74/59.44 92.85/60.35",
    "FCN-8s-V": "92.82/69.26 92.83/69.33 92.79/69.10 92.78/69.36 92.90/69.82 "
    "92.72/68.96 92.82/69.26 92.72/69.02 92.78/68.94 92.51/68.14",
    "FCN-8s-C": "94.31/67.03 94.32/67.30 94.29/67.36 94.30/67.10 94.36/67.42 "
    "94.28/67.38 94.31/67.03 94.30/66.94 94.31/66.88 94.10/65.52",
}
RESULTS = {
    case: {
        cell: Printed(*map(float, pair.split("/")))
        for cell, pair in zip(_CELLS, line.split(), strict=True)
    }
    for case, line in _PRINTED.items()
}
COSTS = {
    "ResNet-50-V": Cost(23.6, 2.79, 2.6, 4.1),
    "ResNet-50-C": Cost(23.6, 2.78, 2.6, 3.0),
    "FCN-8s-V": Cost(134.5, 2.79, 6.8, 9.2),
    "FCN-8s-C": Cost(134.4, 2.78, 3.5, 4.5),
}
_NETWORKS = {"resnet50": "ResNet-50", "resnet50_v15": "ResNet-50", "fcn8s": "FCN-8s"}
_DATASETS = {"voc": "V", "cityscapes": "C"}
_TRAIN_SPLITS = {"voc": "train_aug", "cityscapes": "train"}


def case(config: ConfigDict) -> str | None:
    """Return the paper's case that a config reproduces, such as `FCN-8s-V`, or None.

    V is PASCAL VOC and C is Cityscapes. A config with another head, output stride or
    width of the network, or with a part of the images or labels, is none of them.
    """
    dataset, network = _DATASETS.get(config.data.name), _network(config)
    partial = (
        config.data.options.get("allow_missing", False)
        or config.data.train_split != _TRAIN_SPLITS.get(config.data.name)
        or config.data.train_fraction < 1
        or config.data.labeled_fraction < 1
    )
    if dataset is None or network is None or partial or config.model.width != 1:
        return None
    return f"{network}-{dataset}"


def cases_of_network(config: ConfigDict) -> tuple[str, ...]:
    """Return the paper's cases with the config's network, on either of its datasets."""
    network = _network(config)
    return tuple(name for name in RESULTS if network and name.startswith(network))


def _network(config: ConfigDict) -> str | None:
    """Return the paper's name of the config's network, of any width, or None."""
    model = config.model
    if model.head != "score" or model.output_stride not in (None, 32):
        return None
    return _NETWORKS.get(model.name)
