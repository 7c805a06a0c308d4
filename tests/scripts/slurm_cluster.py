"""A SLURM cluster of one node: munge, slurmctld and slurmd in a temporary folder."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time

from tests.support import ROOT

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol")

# A job that is queued again starts when the credential of its last start has expired
# (cred_expire), which takes two minutes by default.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""


def missing():
    """Return why there can be no cluster, or None."""
    if os.geteuid():
        return "starting slurmd needs the rights of root"
    path = os.environ["PATH"] + ":/usr/sbin"
    absent = [x for x in PROGRAMS if not shutil.which(x, path=path)]
    return f"SLURM is not installed: {', '.join(absent)}" if absent else None


@contextlib.contextmanager
def cluster(folder):
    """Start the daemons; yield the environment of commands; end the daemons."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(
            folder=folder,
            host=socket.gethostname().split(".")[0],
            control_port=_free_port(),
            node_port=_free_port(),
        )
    )
    environment = os.environ | {
        "PATH": os.environ["PATH"] + ":/usr/sbin",
        "SLURM_CONF": str(config),
        "PYTHONPATH": str(ROOT),
    }
    munge = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munge += [f"--{x}-file={folder}/munge.{x}" for x in ("log", "pid", "seed")]
    commands = [
        [*munge, f"--socket={folder}/munge.socket"],
        ["slurmctld", "-D", "-f", str(config)],
        ["slurmd", "-D", "-f", str(config)],
    ]
    with contextlib.ExitStack() as stack:
        for command in commands:
            log = stack.enter_context((folder / f"{command[0]}.out").open("w"))
            daemon = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            stack.callback(_end, daemon)
            if command[0] == "munged":
                wait_for((folder / "munge.socket").exists, seconds=20)
        nodes = ["scontrol", "show", "node"]
        try:
            wait_for(lambda: "State=IDLE" in run(nodes, environment), seconds=40)
        except TimeoutError:
            logs = [x.read_text()[-1000:] for x in folder.glob("*.out")]
            raise RuntimeError(
                "the node does not become idle: " + "\n".join(logs)
            ) from None
        yield environment


def run(command, environment):
    """Run a command and return its output."""
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=ROOT
    )
    return done.stdout + done.stderr


def submit(arguments, environment):
    """Submit a batch job and return its number."""
    output = run(["sbatch", *arguments], environment)
    found = re.search(r"Submitted batch job (\d+)", output)
    assert found, output
    return found[1]


def job(number, environment):
    """Return a job's fields, such as JobState and Restarts."""
    text = run(["scontrol", "show", "job", number], environment)
    return dict(x.split("=", 1) for x in text.split() if "=" in x)


def wait_for(condition, *, seconds):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not happen within {seconds} s")
        time.sleep(0.1)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _end(daemon):
    daemon.terminate()
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
