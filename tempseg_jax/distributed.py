"""Several processes as one run, through `jax.distributed`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax

HEARTBEAT_TIMEOUT = 30
"""Seconds without a sign of life after which a process counts as dead."""


def join(
    *,
    automatic: bool,
    coordinator_address: str | None,
    num_processes: int | None,
    process_id: int | None,
) -> None:
    """Join the other processes, before anything else touches a device.

    Args:
        automatic: take the rest from SLURM, Kubernetes, Open MPI or a TPU pod.
        coordinator_address: host:port of process 0.
        num_processes: of the run.
        process_id: of this process, from 0.

    Raises:
        ValueError: only some of the last three are given.
    """
    given = (coordinator_address, num_processes, process_id)
    if given == (None, None, None) and not automatic:
        return
    if None in given and not automatic:
        raise ValueError(
            "--coordinator_address, --num_processes and --process_id belong together; "
            "give all three, or --distributed where SLURM or Kubernetes knows them"
        )
    jax.config.update("jax_enable_preemption_service", True)
    jax.distributed.initialize(
        coordinator_address=coordinator_address,
        num_processes=num_processes,
        process_id=process_id,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
    )


@contextmanager
def stops_with_the_others() -> Iterator[None]:
    """End at once, with one line, where another process of the run has died.

    Without the exit JAX would wait for the dead process to say goodbye.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        print(
            f"error: process {jax.process_index()} lost another process of the run "
            f"({reason}); start all of them again, and training goes on from the last "
            "checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)
