"""Training with several processes, through `jax.distributed`."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from tempseg_jax.cli.command import OUT_OF_MEMORY

HEARTBEAT_TIMEOUT = 30
"""Seconds without a heartbeat after which a process counts as dead."""

INITIALIZATION_TIMEOUT = 300
"""Seconds that a process waits at its start for the other processes."""

GRACE = 1
"""Seconds between an error and the exit, so that others can report the same error.

JAX aborts all other processes as soon as the first one has ended.
"""


def join(
    *,
    automatic: bool,
    coordinator_address: str | None,
    num_processes: int | None,
    process_id: int | None,
    trains: bool,
) -> None:
    """Connect to the other processes of the run; call it before JAX uses a device.

    Nothing happens if no argument is given.

    Args:
        automatic: Detect the other arguments from SLURM, Kubernetes, Open MPI or a TPU
            pod.
        coordinator_address: Host and port of process 0, as host:port.
        num_processes: Number of processes of the run.
        process_id: Number of this process, from 0.
        trains: Whether SIGTERM is kept for the training loop of several processes,
            which then stops in all of them. It ends any other program at once.

    Raises:
        ValueError: If only some of the last three arguments are given, and `automatic`
            is False, or if it is True and nothing is detected.
    """
    given = (coordinator_address, num_processes, process_id)
    if given == (None, None, None) and not automatic:
        return
    if None in given and not automatic:
        raise ValueError(
            "--coordinator_address, --num_processes and --process_id must be given "
            "together; give all three, or --distributed to detect them from SLURM or "
            "Kubernetes"
        )
    jax.config.update("jax_enable_preemption_service", trains)
    before = signal.getsignal(signal.SIGTERM)
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator_address,
            num_processes=num_processes,
            process_id=process_id,
            initialization_timeout=INITIALIZATION_TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    except ValueError as error:
        if not automatic:
            raise
        raise ValueError(
            "--distributed: no job of SLURM, Kubernetes, Open MPI or a TPU pod was "
            f"detected ({error}); on one machine leave it out, for all devices of it, "
            "or give --coordinator_address, --num_processes and --process_id"
        ) from error
    if jax.process_count() == 1:
        # JAX's preemption service has replaced the handler. The loop does not ask it
        # in one process, so that training would go on until SIGKILL.
        signal.signal(signal.SIGTERM, before)


@contextmanager
def exit_without_waiting() -> Iterator[None]:
    """On an error in a run of several processes, exit without waiting for the others.

    At a normal exit JAX waits for minutes until the other processes exit too, while
    they wait for this one in an all-reduce.
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
        time.sleep(GRACE)
        os._exit(code)


@contextmanager
def report_lost_process() -> Iterator[None]:
    """Say in XLA's error that another process of the run may have been lost.

    XLA's message then is about a socket. It has no code of its own for this.

    Raises:
        ConnectionError: If XLA failed in a run of several processes, and not because a
            device is out of memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or OUT_OF_MEMORY in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise ConnectionError(
            f"process {jax.process_index()} has failed or lost another process of the "
            f"run ({reason}); restart all processes to resume training from the last "
            "checkpoint. If it fails again, the output of the other processes or "
            "--debug tells the cause"
        ) from error
