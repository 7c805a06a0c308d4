"""What a compiled training step needs and does, as one JSON object."""

import collections
from typing import Any

import jax

from tempseg_jax.aot import hlo, kernels, liveness, products
from tempseg_jax.aot.cards import GIB, Card
from tempseg_jax.aot.compilation import CompiledStep
from tempseg_jax.aot.kernels import Kernel, Kind

PREALLOCATED = 0.75
"""Share of a GPU's memory that JAX preallocates (XLA_PYTHON_CLIENT_MEM_FRACTION)."""

MARGIN = 1.5 * GIB
"""Memory for what is not counted: workspaces of cuDNN and cuBLAS, fragmentation."""

LIVE_BUFFERS = 12
"""Number of live buffers that are reported."""

_DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


def describe_step(step: CompiledStep, card: Card) -> dict[str, Any]:
    """Return memory, bytes moved, kernels, roofline and dtypes of a compiled step.

    GB moved are the operands and results of every kernel, each once: what caches hold
    between two kernels is not known. The roofline is the sum over kernels of the longer
    of their FLOPs at the card's peak and their bytes at its bandwidth.
    """
    program = hlo.parse(step.hlo)
    launched = kernels.list_kernels(program)
    moved = collections.Counter(dict.fromkeys(Kind, 0))
    for kernel in launched:
        moved[kernel.kind] += kernel.launches * kernel.bytes
    return {
        **_memory(step, card),
        "gb_moved": round(moved.total() / 1e9, 2),
        "gb_by_kind": {kind.value: round(n / 1e9, 2) for kind, n in moved.items()},
        "kernels": sum(kernel.launches for kernel in launched),
        "roofline_ms": round(1e3 * roofline_seconds(launched, card), 2),
        "tflop": round(sum(k.launches * k.flops for k in launched) / 1e12, 3),
        "convolutions": _dtypes(launched, convolutions=True),
        "products": _dtypes(launched, convolutions=False),
        "float32_products": sorted(
            {k.source for k in launched if k.dtype not in (None, "bf16", "f16")}
        ),
        "all_reduced_mb": _all_reduced(launched),
        "live_buffers": [
            {
                "mib": round(buffer.shape.bytes / 2**20, 1),
                "shape": f"{buffer.shape.dtype}{list(buffer.shape.dims)}",
                "source": buffer.source,
                "operation": buffer.operation,
            }
            for buffer in liveness.live_at_peak(program)[:LIVE_BUFFERS]
        ],
        "triton_gemm": step.triton_gemm,
        "compile_s": round(step.seconds, 1),
        "jax": jax.__version__,
    }


def roofline_seconds(launched: list[Kernel], card: Card) -> float:
    """Return the shortest time in which the card could run the kernels."""
    total = 0.0
    for kernel in launched:
        dtype = _DTYPES.get(kernel.dtype or "", "float32")
        seconds = kernel.bytes / card.bandwidth
        if kernel.flops:
            peak = 1e12 * card.tflops.get(dtype, card.tflops["float32"])
            seconds = max(seconds, kernel.flops / peak)
        total += kernel.launches * seconds
    return total


def fits(step: CompiledStep, card: Card) -> str:
    """Return whether the step fits what JAX preallocates: yes, no, or unknown.

    It is unknown if less than `MARGIN` is left for what is not counted.
    """
    margin = PREALLOCATED * card.memory - step.need
    return "no" if margin < 0 else "unknown" if margin < MARGIN else "yes"


def largest_batch(needs: dict[int, int], card: Card, *, multiple: int) -> int:
    """Return the largest batch that leaves `MARGIN` of what JAX preallocates.

    Args:
        needs: Memory that the step needs at two batch sizes, in bytes.
        card: The GPU.
        multiple: The batch is a multiple of this number of images.
    """
    (small, low), (large, high) = sorted(needs.items())
    per_image = (high - low) / (large - small)
    spare = PREALLOCATED * card.memory - MARGIN - low
    images = small + spare / per_image
    return max(0, int(images // multiple) * multiple)


def _memory(step: CompiledStep, card: Card) -> dict[str, Any]:
    available = PREALLOCATED * card.memory
    return {
        "need_gib": round(step.need / GIB, 3),
        "arguments_gib": round(step.arguments / GIB, 3),
        "temporaries_gib": round(step.temporaries / GIB, 3),
        "available_gib": round(available / GIB, 2),
        "margin_gib": round((available - step.need) / GIB, 2),
        "fits": fits(step, card),
    }


def _dtypes(launched: list[Kernel], *, convolutions: bool) -> dict[str, int]:
    """Return the number of convolutions, or of other products, of each dtype."""
    counts: collections.Counter[str] = collections.Counter()
    for kernel in launched:
        is_convolution = products.convolution_of(kernel.instruction) is not None
        if kernel.flops and is_convolution == convolutions:
            counts[_DTYPES.get(kernel.dtype, kernel.dtype)] += kernel.launches
    return dict(counts)


def _all_reduced(launched: list[Kernel]) -> dict[str, float]:
    """Return the megabytes that all devices reduce together in a step, by dtype."""
    moved: collections.Counter[str] = collections.Counter()
    for kernel in launched:
        if kernel.kind is Kind.COLLECTIVES:
            for shape in kernels.result_shapes(kernel.instruction):
                moved[shape.dtype] += kernel.launches * shape.bytes
    return {_DTYPES.get(x, x): round(n / 1e6, 3) for x, n in moved.items()}
