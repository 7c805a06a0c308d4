"""The scripts of scripts/slurm on a cluster of one node; `pytest -m slurm` runs it."""

import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from tempseg_jax.workdir.metrics_writer import read_metrics
from tests.scripts import slurm_cluster

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        slurm_cluster.missing() is not None, reason=str(slurm_cluster.missing())
    ),
]


@pytest.fixture
def environment():
    # The path of a socket has at most 107 bytes, and pytest's folders have long names.
    with (
        tempfile.TemporaryDirectory(prefix="slurm_") as folder,
        slurm_cluster.cluster(Path(folder)) as environment,
    ):
        yield environment | {
            "PYTHON": sys.executable,
            "JAX_PLATFORMS": "cpu",
            "GLIBC_TUNABLES": "",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/xla",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }


def flags(data_dir, **settings):
    """Return the config of a training of steps that take milliseconds."""
    settings = {
        "model.width": 0.05,
        "data.crop_size": 32,
        "data.batch_size": 2,
        "data.num_workers": 0,
        "data.data_dir": data_dir,
        "evaluate_every_epochs": 0,
        "save_every_steps": 5,
        "log_every_steps": 1,
        **settings,
    }
    return [f"--config.{name}={value}" for name, value in settings.items()]


class Training:
    """A job of train.sbatch with two tasks, in one workdir."""

    def __init__(self, folder, data_dir, environment):
        self.workdir, self.log = folder / "run", folder / "log"
        self.environment = environment
        self.command = [
            *("--ntasks-per-node=2", "--partition=low", f"--output={self.log}"),
            *("scripts/slurm/train.sbatch", "--config=configs/demo.py"),
            *flags(data_dir, **{"objective.alpha": 0.0}),
            f"--workdir={self.workdir}",
        ]

    def submit(self, *flags):
        self.number = slurm_cluster.submit([*self.command, *flags], self.environment)

    def field(self, name):
        return slurm_cluster.job(self.number, self.environment).get(name)

    def steps(self):
        path = self.workdir / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def wait_for_steps(self, count):
        start = self.steps()
        slurm_cluster.wait_for(lambda: self.steps() >= start + count, seconds=240)

    def wait_for(self, name, value, seconds=180):
        slurm_cluster.wait_for(lambda: self.field(name) == value, seconds=seconds)

    def tasks(self):
        output = slurm_cluster.run(
            ["scontrol", "listpids", self.number], self.environment
        )
        rows = [line.split() for line in output.splitlines()[1:]]
        return [int(pid) for pid, _, step, *_ in rows if step == "0"]

    def text(self):
        return self.log.read_text()


def test_a_job_resumes_by_itself_after_sigterm_and_preemption_but_not_a_killed_task(
    tmp_path, data_dir, environment
):
    training = Training(tmp_path, data_dir, environment)
    training.submit("--config.steps=1000000")
    training.wait_for_steps(3)
    assert "2 cpu device(s)" in training.text()  # the tasks have found each other
    slurm_cluster.run(["scancel", "--signal=TERM", training.number], environment)
    training.wait_for("Restarts", "1")
    assert "the state is saved" in training.text()
    training.wait_for_steps(3)

    other = ["--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=true"]
    slurm_cluster.submit(other, environment)
    training.wait_for("Restarts", "2", seconds=240)
    training.wait_for_steps(3)

    victim = next(x for x in training.tasks() if _is_python(x))
    os.kill(victim, signal.SIGKILL)
    training.wait_for("JobState", "FAILED")
    resumed = [int(x) for x in re.findall(r"Resuming at step (\d+)", training.text())]
    assert len(resumed) == 2 and 0 < resumed[0] < resumed[1]
    assert "Traceback" not in training.text()

    last = training.steps() + 3
    training.submit("--allow_config_change", f"--config.steps={last}")
    training.wait_for("JobState", "COMPLETED", seconds=240)
    logged = [line["step"] for line in read_metrics(training.workdir)]
    assert logged == list(range(1, last + 1))


def _is_python(pid):
    return "tempseg_jax.main" in Path(f"/proc/{pid}/cmdline").read_text()


def test_the_tasks_of_an_array_share_a_sweep_and_go_on_after_sigterm(
    tmp_path, data_dir, environment
):
    folder, steps = tmp_path / "sweep", 400
    number = slurm_cluster.submit(
        [
            *("--array=1-2", f"--output={tmp_path}/log%a", "--partition=low"),
            *("scripts/slurm/sweep.sbatch", "--config=configs/demo.py"),
            *("--table=3,controls", "--seeds=1", "--test_split="),
            *("--cells=baseline,seg_only", "--train_images=2", f"--workdir={folder}"),
            *flags(data_dir, steps=steps),
        ],
        environment,
    )
    runs = [folder / cell / "seed0" for cell in ("baseline", "seg_only")]
    metrics = [run / "metrics.jsonl" for run in runs]
    slurm_cluster.wait_for(lambda: all(x.exists() for x in metrics), seconds=240)
    first = f"{number}_1"
    slurm_cluster.run(["scancel", "--signal=TERM", first], environment)

    def field(name):
        return slurm_cluster.job(first, environment).get(name)

    slurm_cluster.wait_for(lambda: field("Restarts") == "1", seconds=180)
    finals = [run / "final.json" for run in runs]
    slurm_cluster.wait_for(lambda: all(x.exists() for x in finals), seconds=400)
    slurm_cluster.wait_for(lambda: field("JobState") == "COMPLETED", seconds=60)
    assert "the task is queued again" in (tmp_path / "log1").read_text()
    assert "queued again" not in (tmp_path / "log2").read_text()
    for run in runs:  # each task trained one run
        assert [x["step"] for x in read_metrics(run)] == list(range(1, steps + 1))
