import os
import signal
import threading
import time

import pytest

from tempseg_jax.cli import side_by_side


def test_cores_are_divided_evenly_and_each_is_used_once():
    assert side_by_side.core_groups(2, [0, 1]) == [[0], [1]]
    assert side_by_side.core_groups(2, [4, 5, 7]) == [[4, 7], [5]]
    with pytest.raises(ValueError, match="--jobs: 3 processes need as many cores, and"):
        side_by_side.core_groups(3, [0, 1])


def test_each_process_has_the_command_and_its_own_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "_available_cores", lambda: {0, 1})
    pinned = hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1
    if not pinned:
        pytest.skip("this machine cannot pin a process to one of two cores")
    program = "import os, sys; print(os.sched_getaffinity(0), sys.argv[1:])"
    side_by_side.run(["-c", program, "--x=1"], count=2, folder=tmp_path / "new")
    logs = [(tmp_path / "new" / f"job{i}.log").read_text() for i in (1, 2)]
    assert logs == ["{0} ['--x=1']\n", "{1} ['--x=1']\n"]


def test_a_signal_is_passed_on_and_the_handler_restored(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(side_by_side, "core_groups", lambda count, cores: [cores])
    log, before = tmp_path / "job1.log", signal.getsignal(signal.SIGTERM)
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('stopped'))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )

    def stop():
        while not (log.exists() and log.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    side_by_side.run(["-c", program], count=1, folder=tmp_path)
    thread.join()
    assert log.read_text() == "ready\nstopped\n"
    assert "Stopping after this step of each job" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
