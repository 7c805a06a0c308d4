"""Compute the golden activations with PyTorch in float64.

    python tests/models/golden/make_golden.py

This script needs only torch and NumPy. It implements the networks a second time, after
the definitions of torchvision and Keras and without importing the package: with
explicit padding, NCHW, and each library's tensor names and axis orders. BatchNorm's
running variance is that of Keras and Flax, a mean of the batches' biased variances;
PyTorch's, a mean of unbiased variances, is converted.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from draw import draw, draw_image, summarize
from torch import nn

HERE = Path(__file__).parent
CLASSES = 5
SIZES = {"64x96": (2, 64, 96, 3), "50x70": (1, 50, 70, 3)}
TRAIN = {"96x128": (4, 96, 128, 3)}  # 48 positions at the last BatchNorm


class Tape:
    """Summaries of the layers' outputs in one forward pass, by the layers' names."""

    def __init__(self):
        self.rows = {}

    def __call__(self, name, x):
        """Add the summary of x, with a map's channels last."""
        self.rows[name] = summarize(name, x.permute(0, 2, 3, 1) if x.ndim == 4 else x)

    def save(self, name):
        """Write the summaries to a file."""
        values = np.stack(list(self.rows.values())).astype(np.float32)
        np.savez_compressed(HERE / name, names=list(self.rows), values=values)


def kernel(name, *shape, fan_in):
    return torch.from_numpy(draw(name, shape, "kernel", fan_in=fan_in)).double()


def vector(name, size, kind):
    return torch.from_numpy(draw(name, (size,), kind)).double()


def biased(variance, before, count):
    """Convert a running variance from the batch's unbiased to its biased variance."""
    kept = 0.9 * before
    return kept + (variance - kept) * (count - 1) / count


def caffe(image):
    """Subtract the mean from BGR (keras.applications.imagenet_utils, mode 'caffe')."""
    x = torch.from_numpy(image[..., ::-1].copy()).permute(0, 3, 1, 2).double()
    return x - torch.tensor([103.939, 116.779, 123.68]).double().view(1, 3, 1, 1)


def torchvision(image):
    """Apply torchvision's ToTensor and Normalize."""
    x = torch.from_numpy(image.copy()).permute(0, 3, 1, 2).double() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).double().view(1, 3, 1, 1)
    return (x - mean) / torch.tensor([0.229, 0.224, 0.225]).double().view(1, 3, 1, 1)


def pad_to(multiple, x):
    return F.pad(x, (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple))


def score(x, name):
    w = kernel(f"{name}.weight", CLASSES, x.shape[1], 1, 1, fan_in=x.shape[1])
    return F.conv2d(x, w, vector(f"{name}.bias", CLASSES, "bias"))


def enlarge(x, factor):
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class KerasResNet50:
    """keras.applications.resnet.ResNet50: biases, stride in a stage's first 1x1.

    With `stages=3` it ends after conv4, at stride 16.
    """

    def __init__(self, tape, train, stages=4):
        self.tape, self.train, self.stages = tape, train, stages

    def conv(self, name, x, filters, size, stride=1):
        fan_in = size * size * x.shape[1]
        hwio = kernel(
            f"{name}_conv/kernel", size, size, x.shape[1], filters, fan_in=fan_in
        )
        bias = vector(f"{name}_conv/bias", filters, "bias")
        y = F.conv2d(x, hwio.permute(3, 2, 0, 1), bias, stride)
        self.tape(f"{name}_conv", y)
        return y

    def norm(self, name, x):
        name, c = f"{name}_bn", x.shape[1]
        mean = vector(f"{name}/moving_mean", c, "mean")
        var = vector(f"{name}/moving_variance", c, "var")
        gamma, beta = (
            vector(f"{name}/gamma", c, "scale"),
            vector(f"{name}/beta", c, "bias"),
        )
        if self.train:
            batch_mean = x.mean((0, 2, 3))
            batch_var = ((x - batch_mean.view(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
            self.tape(f"{name}/moving_mean", 0.9 * mean + 0.1 * batch_mean)
            self.tape(f"{name}/moving_variance", 0.9 * var + 0.1 * batch_var)
            mean, var = batch_mean, batch_var
        y = F.batch_norm(x, mean, var, gamma, beta, training=False, eps=1.001e-5)
        self.tape(name, y)
        return y

    def block(self, name, x, filters, stride=1, conv_shortcut=False):
        shortcut = x
        if conv_shortcut:
            shortcut = self.conv(f"{name}_0", x, 4 * filters, 1, stride)
            shortcut = self.norm(f"{name}_0", shortcut)
        y = self.norm(f"{name}_1", self.conv(f"{name}_1", x, filters, 1, stride)).relu()
        y = self.conv(f"{name}_2", F.pad(y, (1, 1, 1, 1)), filters, 3)
        y = self.norm(f"{name}_2", y).relu()
        y = self.norm(f"{name}_3", self.conv(f"{name}_3", y, 4 * filters, 1))
        return (shortcut + y).relu()

    def __call__(self, image):
        h, w = image.shape[1:3]
        stride = 2 ** (self.stages + 1)
        x = F.pad(pad_to(stride, caffe(image)), (3, 3, 3, 3))
        x = self.norm("conv1", self.conv("conv1", x, 64, 7, 2)).relu()
        x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
        for stage, (filters, blocks) in enumerate(
            [(64, 3), (128, 4), (256, 6), (512, 3)][: self.stages], start=2
        ):
            for i in range(1, blocks + 1):
                s = 2 if i == 1 and stage > 2 else 1
                x = self.block(f"conv{stage}_block{i}", x, filters, s, i == 1)
        self.tape("logits", enlarge(score(x, "score"), stride)[:, :, :h, :w])


class Bottleneck(nn.Module):
    """torchvision.models.resnet.Bottleneck (v1.5: stride in conv2)."""

    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = None
        if inputs != 4 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * planes, 1, stride, bias=False),
                nn.BatchNorm2d(4 * planes),
            )

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (self.downsample(x) if self.downsample else x)).relu()


class TorchResNet50(nn.Module):
    """torchvision.models.resnet50 without its classifier."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for i, (planes, blocks) in enumerate(
            [(64, 3), (128, 4), (256, 6), (512, 3)], start=1
        ):
            layer = []
            for j in range(blocks):
                layer.append(Bottleneck(inputs, planes, 2 if j == 0 and i > 1 else 1))
                inputs = 4 * planes
            self.add_module(f"layer{i}", nn.Sequential(*layer))

    def forward(self, x):
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class TorchVGG16(nn.Module):
    """torchvision.models.vgg16 with its classifier applied at each padded position."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for v in [64, 64, "M", 128, 128, "M", 256, 256, 256, "M"] + 2 * [
            512,
            512,
            512,
            "M",
        ]:
            if v == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(inputs, v, 3, padding=1), nn.ReLU()]
                inputs = v
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
        )

    def forward(self, x):
        taps = {}
        for i, layer in enumerate(self.features):
            x = layer(x)
            taps[i] = x
        b, _, h, w = x.shape
        # The 7x7 neighborhood of each position, channels first, as Linear expects.
        windows = F.unfold(x, 7, padding=3).transpose(1, 2)
        x = self.classifier(windows).transpose(1, 2).reshape(b, 4096, h, w)
        return taps[16], taps[23], x


def fill(model):
    """Fill a torch model's tensors with values drawn by their names."""
    kinds = {"running_mean": "mean", "running_var": "var", "weight": "scale"}
    for name, tensor in model.state_dict().items():
        last = name.rpartition(".")[2]
        if tensor.ndim > 1:
            tensor.copy_(kernel(name, *tensor.shape, fan_in=tensor[0].numel()))
        elif tensor.ndim == 1:
            tensor.copy_(vector(name, tensor.shape[0], kinds.get(last, last)))


def watch(model, tape):
    """Record outputs of convolutions, linear layers and BatchNorms, and statistics."""

    def note(name):
        def hook(module, inputs, output):
            tape(name, output)  # a Linear's has shape (b, positions, channels)
            if isinstance(module, nn.BatchNorm2d) and module.training:
                count = output.numel() / output.shape[1]
                before = vector(f"{name}.running_var", output.shape[1], "var")
                tape(f"{name}.running_mean", module.running_mean)
                tape(f"{name}.running_var", biased(module.running_var, before, count))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.register_forward_hook(note(name))


def keras_resnet50(tape, train, image):
    KerasResNet50(tape, train)(image)


def keras_resnet50_c4(tape, train, image):
    KerasResNet50(tape, train, stages=3)(image)


def torch_resnet50(tape, train, image):
    model = TorchResNet50().double()
    fill(model)
    watch(model, tape)
    h, w = image.shape[1:3]
    x = model.train(train)(pad_to(32, torchvision(image)))
    tape("logits", enlarge(score(x, "score"), 32)[:, :, :h, :w])


def fcn8s(tape, image):
    model = TorchVGG16().double()
    fill(model)
    watch(model, tape)
    h, w = image.shape[1:3]
    pool3, pool4, fc7 = model.eval()(pad_to(32, torchvision(image)))
    x = enlarge(score(fc7, "score_fc7"), 2) + score(pool4, "score_pool4")
    x = enlarge(x, 2) + score(pool3, "score_pool3")
    # (in, out, row, column); each output pixel sums 2x2 of its 16x16 positions.
    weight = kernel("upsample8.weight", CLASSES, CLASSES, 16, 16, fan_in=4 * CLASSES)
    x = F.conv_transpose2d(x, weight, stride=8, padding=4)
    tape("logits", x[:, :, :h, :w])


class Discriminator(nn.Module):
    """Radford et al. 2016 with TensorFlow's SAME padding, asymmetric for odd sizes."""

    def __init__(self):
        super().__init__()
        inputs = 21
        for i, channels in enumerate((64, 128, 256, 512, 1), start=1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs, channels, 4, 2))
            if i < 5:
                self.add_module(f"bn{i}", nn.BatchNorm2d(channels))
            inputs = channels

    def forward(self, x):
        for i in range(1, 6):
            (top, bottom), (left, right) = map(same, x.shape[2:])
            x = F.pad(x, (left, right, top, bottom))
            x = self.get_submodule(f"conv{i}")(x)
            if i < 5:
                x = F.leaky_relu(self.get_submodule(f"bn{i}")(x), 0.2)
        return x


def discriminator(tape, train, size):
    b, h, w, _ = SIZES[size]
    model = Discriminator().double()
    fill(model)
    watch(model, tape)
    maps = draw(f"probabilities {size}", (b, h, w, 21), "probability")
    model.train(train)(torch.from_numpy(maps).permute(0, 3, 1, 2).double())


def same(size):
    """Return TensorFlow's SAME padding before and after, for kernel 4 and stride 2."""
    total = max((-(-size // 2) - 1) * 2 + 4 - size, 0)
    return total // 2, total - total // 2


def main():
    """Write the files of all cases."""
    for size, shape in (SIZES | TRAIN).items():
        image, mode = draw_image(shape), "train" if size in TRAIN else "eval"
        for name, run in (
            ("resnet50", keras_resnet50),
            ("resnet50_c4", keras_resnet50_c4),
            ("resnet50_v15", torch_resnet50),
        ):
            tape = Tape()
            run(tape, mode == "train", image)
            tape.save(f"{name}_{size}_{mode}")
    for size, shape in SIZES.items():
        tape = Tape()
        fcn8s(tape, draw_image(shape))
        tape.save(f"fcn8s_{size}_eval")
        for mode in ("eval", "train"):
            tape = Tape()
            discriminator(tape, mode == "train", size)
            tape.save(f"discriminator_{size}_{mode}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
