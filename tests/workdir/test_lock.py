import os
import re
import signal
import subprocess
import sys

import pytest

from tempseg_jax.workdir.lock import NAME, training_lock
from tests.support import ROOT

HOLD = """
import sys, time
from tempseg_jax.workdir.lock import training_lock
with training_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_training_is_told_who_holds_the_workdir(other, tmp_path):
    pattern = (
        rf"{re.escape(str(tmp_path / 'run'))}: another training .*host {os.uname()[1]},"
        rf" process {other.pid}, since 20\d\d-.*; wait for its end"
    )
    with (
        pytest.raises(OSError, match=pattern),
        training_lock(tmp_path / "run"),
    ):
        pytest.fail("two trainings hold the lock")


def test_the_lock_of_a_killed_process_is_taken_over(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "run" / NAME).exists()
    with training_lock(tmp_path / "run"):
        assert f"process {os.getpid()}," in (tmp_path / "run" / NAME).read_text()


def test_a_lock_that_is_taken_again_and_again_is_never_held_twice(tmp_path):
    # Its file is deleted at each release, while others open it.
    program = """
import sys, time
from pathlib import Path
from tempseg_jax.workdir.lock import training_lock
folder, taken, end = Path(sys.argv[1]), 0, time.monotonic() + 30
while taken < 100 and time.monotonic() < end:
    try:
        with training_lock(folder):
            (folder / "alone").mkdir()  # raises if another process is here
            (folder / "alone").rmdir()
            taken += 1
    except FileNotFoundError as error:  # the folder was deleted while it was opened
        assert "alone" not in str(error)
    except OSError as error:
        assert "another training" in str(error), error
assert taken == 100
"""
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]


def test_a_folder_that_stays_empty_is_deleted(tmp_path):
    with training_lock(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with training_lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "config.json").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["config.json"]


def test_a_workdir_that_was_renamed_is_noticed(tmp_path):
    with training_lock(tmp_path / "run") as lock:
        lock.check()
        (tmp_path / "run").rename(tmp_path / "other")
        message = r"run: the workdir was renamed or deleted .*; move it back"
        with pytest.raises(OSError, match=message):
            lock.check()
        (tmp_path / "run").mkdir()  # as a save does
        with pytest.raises(OSError, match=message):
            lock.check()
        (tmp_path / "run").rmdir()
        (tmp_path / "other").rename(tmp_path / "run")
        lock.check()
