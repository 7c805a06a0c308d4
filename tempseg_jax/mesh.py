"""Devices: one mesh over all of them, the batch split, everything else replicated.

`jit` of a step over such arrays computes what one device would: BatchNorm's statistics
and the losses are over the whole batch, and XLA inserts the all-reduces.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from tempseg_jax.types import Batch


def data_mesh(*, batch_size: int) -> Mesh:
    """All devices of all processes, along one axis `data`, for this (micro-)batch.

    Raises:
        ValueError: the batch does not divide among them.
    """
    mesh = global_mesh()
    if batch_size % mesh.size:
        raise ValueError(
            f"data.batch_size over accumulate: {batch_size} images at once do not "
            f"divide among {mesh.size} devices; choose a data.batch_size that is a "
            f"multiple of {mesh.size} times accumulate"
        )
    return mesh


def global_mesh() -> Mesh:
    """All devices of all processes, for what is replicated."""
    return Mesh(np.array(jax.devices()), ("data",))


def local_mesh() -> Mesh:
    """This process's devices alone, for work whose shapes differ between processes."""
    return Mesh(np.array(jax.local_devices()), ("data",))


def divisible(batch_size: int, mesh: Mesh) -> int:
    """Round a batch up to a multiple of the mesh's devices."""
    return -(-batch_size // mesh.size) * mesh.size


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put the same values on every device of the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(
            sharding, np.asarray(jnp.asarray(x))
        ),
        tree,
    )


def replicated_shapes(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return the shapes of arrays to come that are to be on every device."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def to_local(tree: PyTree, mesh: Mesh) -> PyTree:
    """Replicate over a local mesh what is replicated over the global one."""
    if jax.process_count() > 1:
        tree = jax.tree.map(lambda x: x.addressable_data(0), tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Split the leading axis: each process hands in its own share of the batch."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x), batch
    )


def over_processes(tree: PyTree) -> PyTree:
    """Sum NumPy numbers of 64 bits over all processes.

    As halves of 32 bits, because JAX would round them to 32 on the way.
    """
    if jax.process_count() == 1:
        return tree

    def total(x: np.ndarray | int) -> np.ndarray:
        x = np.asarray(x)
        halves = multihost_utils.process_allgather(x.reshape(-1).view(np.uint32))
        every = np.ascontiguousarray(halves).view(x.dtype)
        return every.reshape(jax.process_count(), *x.shape).sum(axis=0)

    return jax.tree.map(total, tree)
