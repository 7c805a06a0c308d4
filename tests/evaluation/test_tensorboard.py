"""Scalars that TensorBoard shows of an evaluation."""

import numpy as np

from tempseg_jax.evaluation import tensorboard
from tempseg_jax.types import IGNORE_LABEL


def test_a_class_named_void_keeps_its_share():
    shares = tensorboard.ClassShares(("void", "road"))
    labels = np.full((1, 8, 8), IGNORE_LABEL, np.uint8)
    labels[:, :4], labels[:, 4:, :4] = 0, 1  # of 4 counted pixels: 2, 1 and 1 of void
    shares.add(labels)
    assert shares.scalars() == {
        "train_share/void": 0.5,
        "train_share/road": 0.25,
        "train_share/void_255": 0.25,
    }
