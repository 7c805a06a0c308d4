"""Compute golden outputs with the networks of torchvision and timm themselves.

    python tests/models/golden/make_torchvision.py

This script needs torch, torchvision and timm. The networks are narrow and shallow, so
that they compile quickly; their code is that of the libraries. Each file has the logits
in evaluation mode and, in training mode, the logits and every running statistic, which
depend on all layers before them. The running variance is converted as in
make_golden.py.
"""

import numpy as np
import timm
import torch
import torch.nn.functional as F
from draw import draw_fading
from make_golden import CLASSES, Tape, biased, fill, score, torchvision, vector
from torch import nn
from torchvision.models import mobilenet_v3_large, resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabV3
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.models.segmentation.lraspp import _lraspp_mobilenetv3

BLOCKS = [1, 2, 2, 2]
SHAPE = (2, 64, 96, 3)


class Narrow(resnet.ResNet):
    """torchvision's ResNet with an eighth of the channels."""

    def _make_layer(self, block, planes, *args, **kwargs):
        if planes == 64:
            self.inplanes = 8
            self.conv1 = nn.Conv2d(3, 8, 7, 2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(8)
        return super()._make_layer(block, planes // 8, *args, **kwargs)


def narrow_resnet(*dilated):
    model = Narrow.__new__(Narrow)
    real, nn.Linear = nn.Linear, lambda *_: nn.Identity()  # its classifier is not used
    Narrow.__init__(
        model, resnet.Bottleneck, BLOCKS, replace_stride_with_dilation=dilated
    )
    nn.Linear = real
    layers = {"layer4": "out", "layer3": "aux"}
    return IntermediateLayerGetter(model, return_layers=layers)


def fcn():
    """fcn_resnet50 at output stride 16."""
    backbone = narrow_resnet(False, False, True)
    return FCN(backbone, FCNHead(256, CLASSES), FCNHead(128, CLASSES))


def deeplabv3():
    """deeplabv3_resnet50, with an eighth of the head's 256 channels."""
    head = nn.Sequential(  # as in DeepLabHead
        ASPP(256, (12, 24, 36), 32),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, CLASSES, 1),
    )
    return DeepLabV3(narrow_resnet(False, True, True), head, FCNHead(128, CLASSES))


def lraspp():
    """lraspp_mobilenet_v3_large, with half of the backbone's channels."""
    return _lraspp_mobilenetv3(
        mobilenet_v3_large(width_mult=0.5, dilated=True), CLASSES
    )


class Scored(nn.Module):
    """A network of timm without its classifier, with the paper's head."""

    def __init__(self, net, stride):
        super().__init__()
        self.net, self.stride = net, stride

    def forward(self, x):
        x = self.net.forward_features(x)
        x = F.interpolate(score(x, "score"), scale_factor=self.stride, mode="bilinear")
        return {"out": x}


def resnet50d(stride=16):
    """Build timm's resnet50d with an eighth of the channels."""
    net = timm.create_model(
        "resnet50d",
        output_stride=stride,
        layers=BLOCKS,
        channels=(8, 16, 32, 64),
        stem_width=4,
    )
    return Scored(net, stride)


def timm_mobilenet():
    """Build timm's mobilenetv3_large_100, not narrow: it rounds channels otherwise."""
    return Scored(timm.create_model("mobilenetv3_large_100"), 32)


CASES = {
    "fcn": fcn,
    "deeplabv3": deeplabv3,
    "lraspp": lraspp,
    "resnet50d": resnet50d,
    "timm_mobilenet": timm_mobilenet,
}


def statistics(model, inputs):
    """Return {name: running statistic} after a step, with biased variances."""
    found, counts, hooks = {}, {}, []
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, norm in norms.items():
        norm.momentum = 0.1

        def count(module, args, output, name=name):
            counts[name] = output.numel() / output.shape[1]

        hooks.append(norm.register_forward_hook(count))
    logits = model.train()(inputs)
    for name, norm in norms.items():
        name = name.removeprefix("net.")
        full = name if name in counts else f"net.{name}"
        before = vector(f"{name}.running_var", norm.num_features, "var")
        found[f"{name}.running_mean"] = norm.running_mean
        found[f"{name}.running_var"] = biased(norm.running_var, before, counts[full])
    return logits, found


def main():
    """Write the files of all cases."""
    image = draw_fading(SHAPE)
    for case, build in CASES.items():
        torch.manual_seed(0)
        model = build().double()
        fill(model.net if hasattr(model, "net") else model)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        tape, x = Tape(), torchvision(image)
        tape("logits", model.eval()(x)["out"])
        outputs, running = statistics(model, x)
        for key, value in outputs.items():
            tape(f"train {key}", value)
        for name, value in running.items():
            tape(name, value)
        tape.save(f"{case}_{SHAPE[1]}x{SHAPE[2]}")
        print(case, len(tape.rows), np.abs(tape.rows["logits"]).max())


if __name__ == "__main__":
    with torch.no_grad():
        main()
