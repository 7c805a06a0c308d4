"""Heads: from the features of a backbone's stages to class scores."""

from tempseg_jax.models.heads.aspp import ASPPHead
from tempseg_jax.models.heads.deeplabv3plus import DeepLabV3PlusHead
from tempseg_jax.models.heads.fcn import FCNHead
from tempseg_jax.models.heads.lraspp import LRASPPHead
from tempseg_jax.models.heads.score import ScoreHead

HEADS = {
    "score": ScoreHead,
    "fcn": FCNHead,
    "aspp": ASPPHead,
    "deeplabv3plus": DeepLabV3PlusHead,
    "lraspp": LRASPPHead,
}
"""The values of `model.head`.

A head is called with the features by stage, and returns scores at its `stride`.
"""
