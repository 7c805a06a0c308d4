"""When scripts/slurm/sweep.sbatch queues its task again; SLURM is replaced."""

import os
import subprocess

import pytest

from tests.support import ROOT

STOPPED = "Stopping after this step; repeat to stop at once."


@pytest.mark.parametrize(
    ("code", "printed", "queued"),
    [
        (143, "", True),  # SIGTERM between two runs
        (1, STOPPED, True),  # SIGTERM during a training
        (1, "error: no such config", False),
        (0, STOPPED, False),  # it came with the last step of the last run
        (0, "", False),
    ],
)
def test_a_task_is_queued_again_if_sigterm_ended_it(tmp_path, code, printed, queued):
    commands = {
        "srun": f'echo "$@" > {tmp_path}/arguments; echo "{printed}" >&2; exit {code}',
        "scontrol": f'echo "$@" > {tmp_path}/queued',
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    task = {"JOB_ID": f"test-{os.getpid()}", "ARRAY_TASK_COUNT": "3"}
    task |= {"ARRAY_TASK_ID": "6", "ARRAY_TASK_MIN": "5"}
    done = subprocess.run(
        ["bash", "scripts/slurm/sweep.sbatch", "--workdir=x"],
        cwd=ROOT,
        env=os.environ
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        | {f"SLURM_{name}": value for name, value in task.items()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert "--shard=2/3 --workdir=x" in (tmp_path / "arguments").read_text()
    assert (tmp_path / "queued").exists() == queued
