"""A backbone and a head that scores its features; the logits of any segmenter."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree, UInt8

from tempseg_jax.models.heads import HEADS
from tempseg_jax.models.layers import normalize_and_pad, upsample_bilinear
from tempseg_jax.models.preprocessing import Preprocessing

AUXILIARY_STAGE = 4
"""The stage that the auxiliary head scores, as in torchvision and mmsegmentation."""


class BackboneAndHead(nn.Module):
    """Scores of a head, enlarged to the image by bilinear interpolation.

    With an auxiliary head (Zhao et al. 2017, PSPNet), the features of stage 4 are
    scored too in training, and these scores are stored as the intermediate value
    `auxiliary_logits`. They have no effect on the logits.
    """

    backbone: nn.Module  # image -> {stage: features}, with an `output_stride`
    num_classes: int  # without the ignore label
    preprocessing: Preprocessing
    width: float  # multiplies the head's channels; 1 is the published network
    dtype: DTypeLike  # of the convolutions; parameters, statistics, logits: float32
    head: str = "score"  # a key of HEADS
    auxiliary: bool = False  # whether there is an auxiliary head
    dropout: float | None = None  # rate in the heads; None: the head's own
    drop_connect: float = 0.0  # rate of DropConnect in the score layers

    @nn.compact
    def __call__(
        self, image: UInt8[Array, "b h w 3"], *, train: bool
    ) -> Float[Array, "b h w {self.num_classes}"]:
        """Return float32 logits, not divided by a temperature: the losses do that."""
        stride = self.backbone.output_stride
        x = normalize_and_pad(
            image, self.preprocessing, multiple=stride, dtype=self.dtype
        )
        # The layers of the backbone and `score` are not nested, so that the variables
        # of every head and of the paper's networks have the same names.
        nn.share_scope(self, self.backbone)
        features = self.backbone(x, train=train)
        self.sow("intermediates", "features", features[max(features)])  # to distill
        if self.auxiliary and (train or self.is_initializing()):
            head = self._head("fcn", min(2**AUXILIARY_STAGE, stride), name="auxiliary")
            scores = head({AUXILIARY_STAGE: features[AUXILIARY_STAGE]}, train=train)
            logits = _enlarge(scores, image, factor=head.stride)
            self.sow("intermediates", "auxiliary_logits", logits)
        head = self._head(self.head, stride, name="head")
        if self.head == "score":
            nn.share_scope(self, head)
        scores = head(features, train=train)
        if not train:  # a prediction is the largest logit, and 16 bits are often equal
            scores = scores.astype(jnp.float32)
        return _enlarge(scores, image, factor=head.stride)

    def _head(self, head: str, output_stride: int, *, name: str) -> nn.Module:
        options = {} if self.dropout is None else {"dropout": self.dropout}
        return HEADS[head](
            self.num_classes,
            output_stride,
            self.width,
            self.dtype,
            drop_connect=self.drop_connect,
            name=name,
            **options,
        )


def _enlarge(
    scores: Float[Array, "b _ _ k"], image: UInt8[Array, "b h w 3"], *, factor: int
) -> Float[Array, "b h w k"]:
    """Return the scores at the size of the image, without its padding, as float32."""
    h, w = image.shape[1:3]
    logits = upsample_bilinear(scores, factor=factor)
    return logits[:, :h, :w].astype(jnp.float32)


def predict(
    variables: dict[str, PyTree],
    image: UInt8[Array, "b h w 3"],
    *,
    segmenter: nn.Module,
) -> Float[Array, "b h w k"]:
    """Return the logits in evaluation mode: no dropout, running statistics."""
    return segmenter.apply(variables, image, train=False)
