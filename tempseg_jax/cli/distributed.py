"""Several processes as one run, through `jax.distributed`."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from tempseg_jax.cli.command import OUT_OF_MEMORY

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
def leaves_at_once() -> Iterator[None]:
    """End this process of several without waiting for the others to say goodbye.

    At a usual exit JAX waits minutes for them, and they for this one in an all-reduce.
    """
    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        code = 1
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        elif isinstance(error.code, int):
            code = error.code
        else:
            print(error.code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def names_a_lost_process() -> Iterator[None]:
    """Say so where another process of the run has died.

    Raises:
        ConnectionError: it has; XLA's own message is of sockets.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or OUT_OF_MEMORY in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise ConnectionError(
            f"process {jax.process_index()} lost another process of the run "
            f"({reason}); start all of them again, and training goes on from the last "
            "checkpoint"
        ) from error
