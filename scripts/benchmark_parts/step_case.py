"""Measure time and memory of a training step: one case of `benchmark.py train`."""

import argparse
import functools
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tempseg_jax import mesh, optim, precision, steps, train_state
from tempseg_jax.hyperparameters import Hyperparameters
from tempseg_jax.jitted_step import COMPILER_OPTIONS
from tempseg_jax.models import SEGMENTERS, DCGANDiscriminator
from tempseg_jax.models.flops import count_flops, count_parameters
from tempseg_jax.models.preprocessing import TORCHVISION
from tempseg_jax.objective.adversaries import ADVERSARIES
from tempseg_jax.objective.losses import Objective

CHUNKS = 5
"""Chunks of steps that are timed; within a chunk, steps are queued as in training."""

D_PASSES = 8
"""FLOPs of D in a step, as a multiple of those of its forward pass.

3 forward passes; 1 for the gradient of L_adv with respect to p; 2 x 2 for the gradients
of L_D. The gradients of L_D with respect to p are not needed, but counted here, which
overestimates the FLOPs of a ResNet-50 step by 2 %."""


def measure(args: argparse.Namespace, model: str, mode: str) -> dict[str, Any]:
    """Measure one case, data parallel over all devices of this machine.

    Args:
        args: As `train.add_arguments` declares them.
        model: A key of SEGMENTERS.
        mode: "supervised" or "adversarial".

    Raises:
        ValueError: If a result is not finite.
    """
    devices = mesh.data_mesh(batch_size=args.batch)
    dtype = precision.COMPUTE_DTYPES[args.dtype]
    segmenter = SEGMENTERS[model](
        num_classes=args.classes,
        preprocessing=TORCHVISION,
        width=1.0,
        dtype=dtype,
        remat=args.remat,
    )
    discriminator = DCGANDiscriminator(dtype) if mode == "adversarial" else None
    state, counts = first_state(
        segmenter, discriminator, dtype=args.dtype, classes=args.classes
    )
    images = random_batch(batch=args.batch, size=args.size, classes=args.classes)
    state, hyper, batch = (
        mesh.replicate(state, devices),
        mesh.replicate(hyperparameters(), devices),
        mesh.split_batch(images, devices),
    )
    step = jax.jit(
        functools.partial(
            steps.train_step,
            objective=Objective(
                segmenter,
                discriminator,
                adversary=ADVERSARIES["lsgan"],
                critic_steps=1,
                mask_void=True,
            ),
        ),
        donate_argnums=0,
        compiler_options=COMPILER_OPTIONS,
    )
    hits = _cache_hits()
    start = time.perf_counter()
    compiled = step.lower(state, batch, hyper).compile()
    compile_s = time.perf_counter() - start
    from_cache = bool(hits)

    times = _time(compiled, state, batch, hyper, args)
    seconds = statistics.median(times)
    flops = _model_flops(segmenter, discriminator, args)
    # Before the ceiling, whose product allocates memory as well.
    peak, program = _peak_bytes(compiled), _program_bytes(compiled)
    ceiling = _ceiling_or_none(dtype)
    speed = flops / seconds / jax.device_count()
    return {
        "framework": f"jax {jax.__version__}",
        "model": model,
        "mode": mode,
        "dtype": args.dtype,
        "size": args.size,
        "batch": args.batch,
        "ms_per_step": round(1e3 * seconds, 3),
        "images_per_s": round(args.batch / seconds, 1),
        "peak_gib": _gib(peak),
        "program_gib": _gib(program),
        "spread_ms": [round(1e3 * min(times), 3), round(1e3 * max(times), 3)],
        "compile_s": round(compile_s, 1),
        "from_cache": from_cache,
        "model_tflop_per_step": round(flops / 1e12, 6),
        "utilization": round(speed / ceiling, 3) if ceiling else None,
        "ceiling_tflops": round(ceiling / 1e12, 2) if ceiling else None,
        "remat": args.remat,
        "platform": jax.devices()[0].platform,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        **counts,
    }


def first_state(segmenter, discriminator, *, dtype: str, classes: int) -> tuple:
    """Return the initial state, without weights from a file, and parameter counts."""
    key = jax.random.key(0)
    image = jnp.zeros((1, 64, 64, 3), jnp.uint8)
    scale = precision.loss_scale(dtype)
    variables = jax.jit(functools.partial(segmenter.init, train=False))(key, image)
    sgd = optim.sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0)
    player_g = train_state.init_player(variables, sgd, loss_scale=scale)
    counts, player_d = {"segmenter_params": count_parameters(player_g.params)}, None
    if discriminator is not None:
        p = jnp.zeros((1, 64, 64, classes))
        variables = jax.jit(functools.partial(discriminator.init, train=False))(key, p)
        adam = optim.adam(learning_rate=0.0)
        player_d = train_state.init_player(variables, adam, loss_scale=scale)
        counts["discriminator_params"] = count_parameters(player_d.params)
    return train_state.TrainState(jnp.int32(0), player_g, player_d), counts


def hyperparameters() -> Hyperparameters:
    """Return the paper's numbers; its peer in PyTorch has the same ones."""
    return Hyperparameters(
        seed=0,
        # Its length is part of the program, which is then found in the compilation
        # cache whatever the number of steps. Later steps take the last value.
        learning_rate_schedule=np.ones(64, np.float32),
        learning_rate_g=5e-3,
        learning_rate_d=1e-7,
        momentum=0.9,
        weight_decay=0.0,
        head_rate=1.0,
        temperature_seg=0.5,
        temperature_adv=0.5,
        temperature_d=1.0,
        alpha=0.05,
        label_smoothing=0.0,
    )


def random_batch(*, batch: int, size: int, classes: int) -> dict[str, np.ndarray]:
    """Return random images and labels."""
    rng = np.random.default_rng(0)
    shape = (batch, size, size)
    label = rng.integers(0, classes, shape, np.uint8)
    label[:, :8] = 255  # some void pixels, as in every real batch
    return {"image": rng.integers(0, 256, (*shape, 3), np.uint8), "label": label}


def _cache_hits() -> list[str]:
    """Return a list that gets an item for each program from the compilation cache."""
    hits = []

    def listen(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    return hits


def _time(compiled, state, batch, hyper, args: argparse.Namespace) -> list[float]:
    """Return the seconds per step of each chunk.

    Raises:
        ValueError: If a result is not finite.
    """
    for _ in range(args.warmup):
        state, metrics = compiled(state, batch, hyper)
    jax.block_until_ready(state)
    chunk = max(1, args.steps // CHUNKS)
    times = []
    for i in range(CHUNKS):
        if args.profile and i == CHUNKS - 1:
            jax.profiler.start_trace(args.profile)
        start = time.perf_counter()
        for _ in range(chunk):
            state, metrics = compiled(state, batch, hyper)
        jax.block_until_ready(state)
        times.append((time.perf_counter() - start) / chunk)
    if args.profile:
        jax.profiler.stop_trace()
        times.pop()  # the profiler makes a step slower
    values = {name: float(value) for name, value in metrics.items()}
    if not np.isfinite(list(values.values())).all():
        raise ValueError(
            f"a metric of the benchmark's last step is not finite: {values}; try "
            "--dtype=float32"
        )
    return times


def _model_flops(segmenter, discriminator, args: argparse.Namespace) -> int:
    """Return the FLOPs of the products in a step, without rematerialization."""
    image = jax.ShapeDtypeStruct((args.batch, args.size, args.size, 3), jnp.uint8)
    p = jax.ShapeDtypeStruct(
        (args.batch, args.size, args.size, args.classes), "float32"
    )

    def forward(module, x) -> int:
        init = functools.partial(module.init, train=False)
        variables = jax.eval_shape(init, jax.random.key(0), x)
        return count_flops(functools.partial(module.apply, train=False), variables, x)

    total = 3 * forward(segmenter, image)
    return total + (D_PASSES * forward(discriminator, p) if discriminator else 0)


def matmul_ceiling(dtype: jnp.dtype) -> float:
    """Return the FLOP/s of a large square matrix product on one device."""
    n = 2048 if jax.devices()[0].platform == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
    product = jax.jit(lambda a, b: a @ b)
    b = jax.block_until_ready(product(a, a))
    best = float("inf")
    for _ in range(CHUNKS):
        start = time.perf_counter()
        for _ in range(4):
            b = product(a, a)
        jax.block_until_ready(b)
        best = min(best, (time.perf_counter() - start) / 4)
    return 2 * n**3 / best


def _ceiling_or_none(dtype: jnp.dtype) -> float | None:
    """Return `matmul_ceiling`, or None: a failure must not lose the finished times."""
    try:
        return matmul_ceiling(dtype)
    except jax.errors.JaxRuntimeError as error:
        print(f"the matrix product of the ceiling failed: {error}", file=sys.stderr)
        return None


def _gib(count: int | None) -> float | None:
    return None if count is None else round(count / 2**30, 2)


def _peak_bytes(compiled) -> int | None:
    """Return the peak memory of the allocator, or of the program without a counter.

    The peak is that of the whole process, including the memory in which XLA tried out
    algorithms. Backends without a counter, such as the CPU, get `_program_bytes`.
    """
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else _program_bytes(compiled)


def _program_bytes(compiled) -> int | None:
    """Return the memory that XLA allocates for one step on one device.

    None if the backend does not tell, as it may with a program from the cache.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
