"""Cells of the table `networks`: output strides and heads, on one backbone."""

from tempseg_jax.sweep.cells.kinds import SUPERVISED, Cell, Contrast, Overrides, Table


def _network(head: str, output_stride: int, *, auxiliary: float = 0.0) -> Overrides:
    return SUPERVISED | {
        "model.name": "resnet50_v15",
        "model.head": head,
        "model.output_stride": output_stride,
        "objective.auxiliary": auxiliary,
    }


CELLS = {
    "net_score32": Cell("ResNet-50, stride 32", _network("score", 32)),
    "net_score16": Cell("ResNet-50, stride 16", _network("score", 16)),
    "net_score8": Cell("ResNet-50, stride 8", _network("score", 8)),
    "net_fcn": Cell("Head fcn, stride 16", _network("fcn", 16)),
    "net_fcn_auxiliary": Cell(
        "Head fcn, stride 16, auxiliary loss", _network("fcn", 16, auxiliary=0.4)
    ),
    "net_aspp": Cell("Head aspp, stride 16", _network("aspp", 16)),
    "net_deeplabv3plus": Cell(
        "Head deeplabv3plus, stride 16", _network("deeplabv3plus", 16)
    ),
}

TABLES = {"networks": Table("Output strides and heads, without D", tuple(CELLS))}

CONTRASTS = (
    Contrast("Is output stride 16 better than 32?", "net_score16", "net_score32"),
    Contrast("Is output stride 8 better than 16?", "net_score8", "net_score16"),
    Contrast("Does the head fcn help?", "net_fcn", "net_score16"),
    Contrast("Does an auxiliary loss help?", "net_fcn_auxiliary", "net_fcn"),
    Contrast("Is the head aspp better than fcn?", "net_aspp", "net_fcn"),
    Contrast("Does a decoder help?", "net_deeplabv3plus", "net_aspp"),
)
