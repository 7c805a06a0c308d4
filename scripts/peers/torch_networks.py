"""The paper's networks in PyTorch, for comparisons: FCN-8s, ResNet-50 and D.

Modules and parameters have the names that they have in `tempseg_jax.models`, so that
weights can be copied by name. Images are uint8 (b, h, w, 3), as in this project, with
heights and widths that are multiples of 32. PyTorch is not a dependency of the project;
only the scripts in this folder import it.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)  # torchvision's, for values 0 to 255
STD = (255 * 0.229, 255 * 0.224, 255 * 0.225)

VGG16_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
RESNET50_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))


class Normalize(nn.Module):
    """Convert uint8 images (b, h, w, 3) to normalized (b, 3, h, w), channels last."""

    def __init__(self) -> None:
        """Keep mean and standard deviation on the device of the network."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(STD), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return float32; the permutation moves no data in memory."""
        return ((image.float() - self.mean) / self.std).permute(0, 3, 1, 2)


class VGG16(nn.Module):
    """Features at strides 8, 16 and 32, with fully connected layers as convolutions."""

    def __init__(self) -> None:
        """Build five blocks of convolutions and pooling, fc6 and fc7."""
        super().__init__()
        c = 3
        for i, (convolutions, channels) in enumerate(VGG16_BLOCKS, start=1):
            layers = OrderedDict()
            for j in range(1, convolutions + 1):
                layers[f"conv{j}"] = nn.Conv2d(c, channels, 3, padding=1)
                layers[f"relu{j}"] = nn.ReLU(inplace=True)
                c = channels
            layers["pool"] = nn.MaxPool2d(2)
            self.add_module(f"block{i}", nn.Sequential(layers))
        self.fc6 = nn.Conv2d(512, 4096, 7, padding=3)
        self.fc7 = nn.Conv2d(4096, 4096, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pool3, pool4 and fc7."""
        pool3 = self.block3(self.block2(self.block1(x)))
        pool4 = self.block4(pool3)
        x = self.dropout(F.relu(self.fc6(self.block5(pool4))))
        return pool3, pool4, self.dropout(F.relu(self.fc7(x)))


class FCN8s(nn.Module):
    """Scores at strides 32, 16 and 8, added, and upsampled by a learned kernel."""

    def __init__(self, classes: int) -> None:
        """Initialize the scores to zero and the upsampling to bilinear."""
        super().__init__()
        self.normalize, self.backbone = Normalize(), VGG16()
        self.score_fc7 = zero_initialized(nn.Conv2d(4096, classes, 1))
        self.score_pool4 = zero_initialized(nn.Conv2d(512, classes, 1))
        self.score_pool3 = zero_initialized(nn.Conv2d(256, classes, 1))
        self.upsample8 = nn.ConvTranspose2d(classes, classes, 16, 8, 4, bias=False)
        triangle = 1 - (torch.arange(16) - 7.5).abs() / 8
        with torch.no_grad():
            self.upsample8.weight.zero_()
            diagonal = range(classes)
            self.upsample8.weight[diagonal, diagonal] = torch.outer(triangle, triangle)

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 logits (b, classes, h, w)."""
        pool3, pool4, fc7 = self.backbone(self.normalize(image))
        x = upsample(self.score_fc7(fc7), 2) + self.score_pool4(pool4)
        x = upsample(x, 2) + self.score_pool3(pool3)
        return self.upsample8(x).float()


class Bottleneck(nn.Module):
    """Residual block of ResNet v1: biased convolutions, stride in the first 1x1."""

    def __init__(self, c: int, channels: int, *, stride: int, project: bool) -> None:
        """Build the residual of three convolutions, and the shortcut."""
        super().__init__()
        self.project = project
        shapes = [(c, channels, 1, stride), (channels, channels, 3, 1)]
        shapes += [(channels, 4 * channels, 1, 1)]
        layers = list(enumerate(shapes, start=1))
        if project:
            layers.append((0, (c, 4 * channels, 1, stride)))
        for i, (c_in, c_out, k, s) in layers:
            self.add_module(f"conv{i}", nn.Conv2d(c_in, c_out, k, s, k // 2))
            self.add_module(f"bn{i}", nn.BatchNorm2d(c_out, momentum=0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU(shortcut + residual)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (self.bn0(self.conv0(x)) if self.project else x))


class ResNet50(nn.Module):
    """ResNet-50 v1 with 1x1 class scores, upsampled by 32."""

    def __init__(self, classes: int) -> None:
        """Build the stem, sixteen blocks and the score layer."""
        super().__init__()
        self.normalize = Normalize()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.bn1 = nn.BatchNorm2d(64, momentum=0.1)
        self.block_names, c = [], 64
        for i, (blocks, channels) in enumerate(RESNET50_STAGES, start=2):
            for j in range(1, blocks + 1):
                stride = 2 if i > 2 and j == 1 else 1
                block = Bottleneck(c, channels, stride=stride, project=j == 1)
                self.block_names.append(f"stage{i}_block{j}")
                self.add_module(self.block_names[-1], block)
                c = 4 * channels
        self.score = zero_initialized(nn.Conv2d(c, classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 logits (b, classes, h, w)."""
        x = F.relu(self.bn1(self.conv1(self.normalize(image))))
        x = F.max_pool2d(x, 3, 2, 1)
        for name in self.block_names:
            x = getattr(self, name)(x)
        return upsample(self.score(x).float(), 32)


class Discriminator(nn.Module):
    """DCGAN's discriminator over maps of class probabilities."""

    def __init__(self, classes: int) -> None:
        """Build five 4x4 convolutions of stride 2, BatchNorm after four of them."""
        super().__init__()
        c = classes
        for i, channels in enumerate((64, 128, 256, 512), start=1):
            self.add_module(f"conv{i}", nn.Conv2d(c, channels, 4, 2, 1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(channels, momentum=0.1))
            c = channels
        self.conv5 = nn.Conv2d(c, 1, 4, 2, 1)

    def forward(self, probabilities: Tensor) -> Tensor:
        """Return a float32 map of linear scores."""
        x = probabilities
        for i in range(1, 5):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            x = F.leaky_relu(x, 0.2, inplace=True)
        return self.conv5(x).float()


SEGMENTERS = {"fcn8s": FCN8s, "resnet50": ResNet50}


def zero_initialized(conv: nn.Conv2d) -> nn.Conv2d:
    """Set weights and biases to zero, so that all classes are equal at the start."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear interpolation with half-pixel centers."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters())
