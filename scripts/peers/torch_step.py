"""Time a training step in PyTorch: the peer of `scripts/benchmark.py train`.

    python scripts/peers/torch_step.py --model=fcn8s --device=cuda --compile

It does the work of this project's step: one forward pass of the segmenter, the
gradients of both players at their old parameters, and both updates. Convolutions run
under autocast in channels-last memory, and optimizers are fused. Two differences
remain. L_adv also updates D's running statistics here. And this project's step also
computes the norm of each player's gradient, for its log, which few steps in PyTorch do.
Standard output has one JSON object per line and mode.
"""

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("error: PyTorch is not installed in this Python; pip install torch")

from torch import Tensor, nn
from torch_networks import SEGMENTERS, Discriminator, count_parameters

CHUNKS = 5
TEMPERATURE_G, TEMPERATURE_D, ALPHA = 0.5, 1.0, 0.05
LEARNING_RATE_G, LEARNING_RATE_D = 5e-3, 1e-7
IGNORE_LABEL = 255

Step = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""(uint8 images, labels) -> losses before the update, as tensors on the device."""


def build_step(
    segmenter: nn.Module, discriminator: nn.Module | None, *, dtype: str, compiled: bool
) -> Step:
    """Return a training step of networks that are on their device.

    Args:
        segmenter: FCN8s or ResNet50, in training mode.
        discriminator: Discriminator in training mode; None for supervised training.
        dtype: Of the convolutions: float32, bfloat16 or float16 (with loss scaling).
        compiled: Whether losses and networks are compiled by torch.compile.
    """
    device = next(segmenter.parameters()).device.type
    fused = device == "cuda"
    sgd = torch.optim.SGD(
        segmenter.parameters(), LEARNING_RATE_G, momentum=0.9, fused=fused
    )
    half = getattr(torch, dtype)
    scaled = dtype == "float16"
    scaler_g = torch.amp.GradScaler(device, init_scale=2.0**15, enabled=scaled)

    def autocast():
        return torch.autocast(device, half, enabled=dtype != "float32")

    def loss_g(image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_G = L_seg + alpha L_adv."""
        logits = segmenter(image)
        loss_seg = F.cross_entropy(
            logits / TEMPERATURE_G, label, ignore_index=IGNORE_LABEL
        )
        if discriminator is None:
            return logits, {"loss": loss_seg, "loss_seg": loss_seg.detach()}
        fake = (logits / TEMPERATURE_G).softmax(1) * visible(label)
        loss_adv = 0.5 * (discriminator(fake) - 1).square().mean()
        loss = loss_seg + ALPHA * loss_adv
        parts = {"loss_seg": loss_seg.detach(), "loss_adv": loss_adv.detach()}
        return logits, {"loss": loss, **parts}

    def loss_d(logits: Tensor, label: Tensor) -> Tensor:
        """L_D, on real and on fake maps separately."""
        seen, k = visible(label), logits.shape[1]
        real = F.one_hot(label.clamp(max=k - 1), k).permute(0, 3, 1, 2).float() * seen
        fake = (logits / TEMPERATURE_D).softmax(1) * seen
        d_real, d_fake = discriminator(real), discriminator(fake)
        return 0.5 * ((d_real - 1).square().mean() + d_fake.square().mean())

    if compiled:
        loss_g, loss_d = torch.compile(loss_g), torch.compile(loss_d)

    def supervised(image: Tensor, label: Tensor) -> dict[str, Tensor]:
        sgd.zero_grad(set_to_none=True)
        with autocast():
            _, losses = loss_g(image, label)
        scaler_g.scale(losses["loss"]).backward()
        scaler_g.step(sgd)
        scaler_g.update()
        return losses

    if discriminator is None:
        return supervised
    adam = torch.optim.Adam(
        discriminator.parameters(), LEARNING_RATE_D, betas=(0.5, 0.999), fused=fused
    )
    scaler_d = torch.amp.GradScaler(device, init_scale=2.0**15, enabled=scaled)

    def adversarial(image: Tensor, label: Tensor) -> dict[str, Tensor]:
        sgd.zero_grad(set_to_none=True)
        adam.zero_grad(set_to_none=True)
        discriminator.requires_grad_(False)  # L_adv has no gradient with respect to D
        with autocast():
            logits, losses = loss_g(image, label)
        scaler_g.scale(losses["loss"]).backward()
        discriminator.requires_grad_(True)
        with autocast():
            losses["loss_d"] = loss_d(logits.detach(), label)
        scaler_d.scale(losses["loss_d"]).backward()
        for scaler, optimizer in ((scaler_g, sgd), (scaler_d, adam)):
            scaler.step(optimizer)
            scaler.update()
        return losses

    return adversarial


def visible(label: Tensor) -> Tensor:
    """Mark the pixels that are not void, as float32 (b, 1, h, w)."""
    return (label != IGNORE_LABEL)[:, None].float()


def measure(args: argparse.Namespace, mode: str) -> dict:
    """Time one mode.

    Raises:
        ValueError: If a loss is not finite.
    """
    torch.manual_seed(0)
    cuda = args.device.startswith("cuda")
    where = {"device": args.device, "memory_format": torch.channels_last}
    segmenter = SEGMENTERS[args.model](args.classes).to(**where).train()
    counts = {"segmenter_params": count_parameters(segmenter)}
    discriminator = None
    if mode == "adversarial":
        discriminator = Discriminator(args.classes).to(**where).train()
        counts["discriminator_params"] = count_parameters(discriminator)
    step = build_step(segmenter, discriminator, dtype=args.dtype, compiled=args.compile)
    shape = (args.batch, args.size, args.size)
    image = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, device=args.device)
    label = torch.randint(0, args.classes, shape, device=args.device)
    label[:, :8] = IGNORE_LABEL  # some void pixels, as in every real batch

    def run(count: int) -> float:
        """Return the seconds per step; steps are queued, as in training."""
        start = time.perf_counter()
        for _ in range(count):
            losses = step(image, label)
        if cuda:
            torch.cuda.synchronize()
        run.losses = losses
        return (time.perf_counter() - start) / count

    first = run(1)
    run(max(1, args.warmup - 1))
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times = [run(max(1, args.steps // CHUNKS)) for _ in range(CHUNKS)]
    losses = {name: float(value.detach()) for name, value in run.losses.items()}
    if not all(map(math.isfinite, losses.values())):
        raise ValueError(f"a loss of the last step is not finite: {losses}")
    seconds = statistics.median(times)
    memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
    name = torch.cuda.get_device_name() if cuda else platform.machine()
    return {
        "framework": f"torch {torch.__version__}",
        "model": args.model,
        "mode": mode,
        "dtype": args.dtype,
        "size": args.size,
        "batch": args.batch,
        "ms_per_step": round(1e3 * seconds, 3),
        "images_per_s": round(args.batch / seconds, 1),
        **({"peak_gib": round(memory, 2)} if cuda else {}),
        "spread_ms": [round(1e3 * min(times), 3), round(1e3 * max(times), 3)],
        "compile_s": round(first, 1),  # the first step
        "compile": args.compile,
        "platform": "gpu" if cuda else args.device,
        "device": f"1 x {name}",
        **counts,
    }


def main() -> None:
    """Print one JSON object per mode."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = ["supervised", "adversarial"]
    parser.add_argument("--model", choices=SEGMENTERS, default="fcn8s")
    parser.add_argument("--mode", nargs="+", choices=modes, default=modes)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16"
    )
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    for name, value in {"size": 416, "batch": 16, "classes": 21}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in {"steps": 50, "warmup": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    if args.size % 32:
        sys.exit(f"error: --size={args.size}: give a multiple of 32")
    torch.backends.cudnn.benchmark = True  # autotuning, as XLA does
    torch.backends.cudnn.allow_tf32 = True  # float32 is TF32 in both frameworks
    torch.backends.cuda.matmul.allow_tf32 = True
    for mode in args.mode:
        print(json.dumps(measure(args, mode)), flush=True)


if __name__ == "__main__":
    main()
