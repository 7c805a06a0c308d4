"""Data parallelism over a device mesh: the batch is sharded, all else is replicated.

A jitted step with such inputs gives the results of a single device: BatchNorm's
statistics and the losses are those of the whole batch, and XLA inserts the all-reduces.
"""

import json
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from tempseg_jax.types import Batch


def data_mesh(*, batch_size: int, unlabeled_batch_size: int = 0) -> Mesh:
    """Return the mesh of all devices of all processes, for batches of this size.

    Args:
        batch_size: Images per batch or, with gradient accumulation, per micro-batch.
        unlabeled_batch_size: Unlabeled images per batch.

    Raises:
        ValueError: If a batch size is not a multiple of the number of devices.
    """
    mesh = global_mesh()
    check_divisible(batch_size, unlabeled_batch_size, devices=mesh.size)
    return mesh


def check_divisible(
    batch_size: int, unlabeled_batch_size: int, *, devices: int
) -> None:
    """Check that every device gets as many images as the others.

    Raises:
        ValueError: If a batch size is not a multiple of the number of devices.
    """
    if batch_size % devices:
        raise ValueError(
            f"data.batch_size / accumulate: {batch_size} images do not divide evenly "
            f"among {devices} devices; choose a data.batch_size that is a multiple "
            f"of {devices} times accumulate"
        )
    if unlabeled_batch_size % devices:
        raise ValueError(
            f"data.unlabeled_batch_size: {unlabeled_batch_size} images do not divide "
            f"evenly among {devices} devices; choose a multiple of {devices}"
        )


def global_mesh() -> Mesh:
    """Return the mesh of all devices of all processes, with one axis `data`."""
    return Mesh(np.array(jax.devices()), ("data",))


def local_mesh() -> Mesh:
    """Return the mesh of this process's devices, for work that processes share."""
    return Mesh(np.array(jax.local_devices()), ("data",))


def round_up(batch_size: int, mesh: Mesh) -> int:
    """Round a batch size up to a multiple of the number of devices."""
    return -(-batch_size // mesh.size) * mesh.size


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copy every array to every device of the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(
            sharding, np.asarray(jnp.asarray(x))
        ),
        tree,
    )


def replicated_shapes(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return the tree's shapes and dtypes, with replicated shardings."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def to_local(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copy arrays that are replicated on the global mesh to a local mesh."""
    if jax.process_count() > 1:
        tree = jax.tree.map(lambda x: x.addressable_data(0), tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Shard the leading axis over the devices; each process passes its own share."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x), batch
    )


def sum_over_processes(tree: PyTree) -> PyTree:
    """Return the sums over all processes of 64-bit NumPy arrays and numbers.

    They are sent as pairs of 32-bit words, because JAX would round them to 32 bits.
    """
    if jax.process_count() == 1:
        return tree

    def total(x: np.ndarray | int) -> np.ndarray:
        x = np.asarray(x)
        halves = multihost_utils.process_allgather(x.reshape(-1).view(np.uint32))
        every = np.ascontiguousarray(halves).view(x.dtype)
        return every.reshape(jax.process_count(), *x.shape).sum(axis=0)

    return jax.tree.map(total, tree)


def texts_of_processes(text: str) -> list[str]:
    """Return the texts of all processes, in their order, in every process."""
    if jax.process_count() == 1:
        return [text]
    content = np.frombuffer(text.encode(errors="replace"), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(content)], np.int32))
    sizes = np.asarray(sizes).reshape(-1)
    padded = np.zeros(max(1, sizes.max()), np.uint8)
    padded[: len(content)] = content
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:n].tobytes().decode() for row, n in zip(rows, sizes, strict=True)]


def check_same(values: Mapping[str, object], *, remedy: str) -> None:
    """Check that all processes of the run have the same values; all must call it.

    Replicated arrays would differ without an error if they did not, or one process
    would wait for another in an operation that the other does not run.

    Args:
        values: Any values, by the names that the message has.
        remedy: The end of the message: what to do if they differ.

    Raises:
        ValueError: In every process, if the values of one are not those of the first.
    """
    text = json.dumps({name: repr(value) for name, value in values.items()})
    first, *others = map(json.loads, texts_of_processes(text))
    for number, other in enumerate(others, start=1):
        differences = [
            f"{name}: {first.get(name, 'absent')} and {other.get(name, 'absent')}"
            for name in sorted(first.keys() | other.keys())
            if first.get(name) != other.get(name)
        ]
        if differences:
            raise ValueError(
                f"processes 0 and {number} of the run do not agree "
                f"({'; '.join(differences)}); {remedy}"
            )
