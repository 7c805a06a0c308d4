"""Compilation of a config's training step for a GPU that this machine does not have."""

import dataclasses
import importlib.metadata
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from tempseg_jax import builders, mesh
from tempseg_jax.aot.cards import Card, target_config
from tempseg_jax.builders.plan import micro_batch_size, unlabeled_batch_size
from tempseg_jax.hyperparameters import Hyperparameters
from tempseg_jax.jitted_step import jitted_step

_OPTIONS = {"xla_gpu_autotune_level": 0}  # autotuning needs the GPU
_NO_TILE = "Couldn't find output tile sizes"
"""XLA's error if the untuned tile of a Triton product does not fit the product."""


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A training step as compiled for one of several GPUs; sizes are in bytes."""

    arguments: int
    outputs: int
    aliased: int  # outputs in the memory of arguments
    temporaries: int
    hlo: str  # the optimized program
    triton_gemm: bool  # whether XLA computed matrix products by Triton
    seconds: float  # that the compilation took

    @property
    def need(self) -> int:
        """Memory that XLA allocates for the step, without workspaces of libraries."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


def compile_step(
    config: ConfigDict, *, num_classes: int, card: Card, num_devices: int
) -> CompiledStep:
    """Compile the training step of a config, without a GPU and without any data.

    Args:
        config: The config, checked by `config_fields`.
        num_classes: Number of classes of the dataset.
        card: The GPU to compile for.
        num_devices: Number of such GPUs in one machine, over which a batch is sharded.

    Raises:
        ValueError: If XLA's compiler for CUDA is not installed, the card cannot compute
            in the precision of the config, or the batch does not divide evenly.
    """
    card.check_precision(config.precision)
    mesh.check_divisible(
        micro_batch_size(config), unlabeled_batch_size(config), devices=num_devices
    )
    start = time.perf_counter()
    lowered = _lower(config, num_classes=num_classes, devices=_mesh(card, num_devices))
    try:
        compiled, triton_gemm = lowered.compile(compiler_options=_OPTIONS), True
    except jax.errors.JaxRuntimeError as error:
        if _NO_TILE not in str(error):
            raise
        options = _OPTIONS | {"xla_gpu_enable_triton_gemm": False}
        compiled, triton_gemm = lowered.compile(compiler_options=options), False
    memory = compiled.memory_analysis()
    return CompiledStep(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        hlo=compiled.as_text(),
        triton_gemm=triton_gemm,
        seconds=time.perf_counter() - start,
    )


def missing_compiler() -> str | None:
    """Return what to install to compile for CUDA, or None if all is there."""
    installed = {_version("jax-cuda12-plugin"), _version("jax-cuda13-plugin")}
    if jax.__version__ in installed:
        return None
    return (
        "XLA's compiler for CUDA is not installed in the version of jax, "
        f"{jax.__version__}. It needs no GPU: pip install "
        f'"jax[cuda12-local]=={jax.__version__}" nvidia-cuda-nvcc-cu12'
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _mesh(card: Card, num_devices: int) -> Mesh:
    if missing := missing_compiler():
        raise ValueError(missing)
    topology = topologies.get_topology_desc(
        platform="cuda",
        target_config=target_config(card),
        topology=f"1x1x{num_devices}",
    )
    return Mesh(np.array(topology.devices), ("data",))


def _lower(config: ConfigDict, *, num_classes: int, devices: Mesh) -> Any:
    """Trace the jitted step of training with shapes in place of arrays."""
    if config.distill.teacher:
        raise ValueError(
            f"distill.teacher: {config.distill.teacher}: a step with a teacher cannot "
            "be compiled without its checkpoint; set it to ''"
        )
    objective = builders.build_objective(config, num_classes=num_classes)
    state = builders.abstract_state(config, objective)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    by_step = jax.ShapeDtypeStruct((builders.numbers.SCHEDULE_BLOCK,), jnp.float32)
    hyper = Hyperparameters(
        **dict.fromkeys(Hyperparameters._fields, number)
        | {
            "seed": jax.ShapeDtypeStruct((), jnp.int32),
            "learning_rate_schedule": by_step,
            "temperature_schedule": by_step,
        }
    )
    size, count = config.data.crop_size, config.data.batch_size
    sharded = NamedSharding(devices, PartitionSpec("data"))
    batch = {
        name: jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=sharded)
        for name, shape in {
            "image": (count, size, size, 3),
            "label": (count, size, size),
        }.items()
    }
    if unlabeled := unlabeled_batch_size(config):
        batch |= {
            "unlabeled_image": jax.ShapeDtypeStruct(
                (unlabeled, size, size, 3), jnp.uint8, sharding=sharded
            ),
            "unlabeled_visible": jax.ShapeDtypeStruct(
                (unlabeled, size, size), jnp.bool_, sharding=sharded
            ),
        }
    step = jitted_step(objective, micro_batches=config.accumulate)
    return step.func.lower(
        mesh.replicated_shapes(state, devices),
        batch,
        mesh.replicated_shapes(hyper, devices),
        **step.keywords,
    )
