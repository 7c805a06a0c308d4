"""Build a segmenter from the values of config fields, and refuse what does not fit."""

from typing import Any, NoReturn

import flax.linen as nn

from tempseg_jax.models import SEGMENTERS, with_field
from tempseg_jax.models.heads import HEADS
from tempseg_jax.models.segmenter import AUXILIARY_STAGE, BackboneAndHead


def build_segmenter(
    name: str,
    *,
    head: str,
    output_stride: int | None,
    auxiliary: bool,
    **arguments: Any,
) -> nn.Module:
    """Return a network.

    Args:
        name: A key of `SEGMENTERS`.
        head: A key of `HEADS`.
        output_stride: Input pixels per feature of the last stage; None for the
            network's own.
        auxiliary: Whether there is an auxiliary head.
        **arguments: The keyword arguments of every segmenter.

    Raises:
        ValueError: If the network does not have this head, output stride or auxiliary
            head.
    """
    segmenter = SEGMENTERS[name](**arguments)
    if head == "score" and output_stride is None and not auxiliary:
        return segmenter
    if not isinstance(segmenter, BackboneAndHead):
        _refuse_fixed(name, head, output_stride)
    backbone = segmenter.backbone
    if output_stride is not None and output_stride not in backbone.output_strides:
        raise ValueError(
            f"model.output_stride: {output_stride} is not one of "
            f"{', '.join(map(str, backbone.output_strides))}, the output strides of "
            f"model.name={name!r}"
        )
    stride = output_stride or backbone.output_stride
    if stride not in HEADS[head].output_strides:
        raise ValueError(
            f"model.head: {head!r} needs an output stride of "
            f"{' or '.join(map(str, HEADS[head].output_strides))}, and that of "
            f"model.name={name!r} is {stride}; set model.output_stride"
        )
    if auxiliary and backbone.last_stage <= AUXILIARY_STAGE:
        raise ValueError(
            f"objective.auxiliary: the auxiliary head scores stage {AUXILIARY_STAGE}, "
            f"which is the last one of model.name={name!r}; set it to 0"
        )
    segmenter = segmenter.clone(head=head, auxiliary=auxiliary)
    return with_field(segmenter, "output_stride", stride)


def _refuse_fixed(name: str, head: str, output_stride: int | None) -> NoReturn:
    """Refuse the first field that a network with scores of its own does not have."""
    if head != "score":
        field, value, own = "model.head", head, "score"
    elif output_stride is not None:
        field, value, own = "model.output_stride", output_stride, None
    else:
        field, value, own = "objective.auxiliary", "above 0", 0
    raise ValueError(
        f"{field}: {value!r} is not supported by model.name={name!r}, whose scores and "
        f"strides are its own; set it to {own!r}"
    )
