import importlib
import os
import signal
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("soak")


def readings(*sizes):
    return [(60.0 * i, size) for i, size in enumerate(sizes)]


def test_a_training_is_stopped_and_its_output_read(soak, tmp_path, monkeypatch):
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('stopped')))\n"
        "time.sleep(60)"
    )
    monkeypatch.setattr(soak.sys, "executable", "/bin/true")
    child = soak.train(tmp_path, [])
    assert os.getsid(child.pid) == child.pid  # a signal reaches it through `watch`
    child.wait()
    log = (tmp_path / "log").open("w")
    child = subprocess.Popen(
        [sys.orig_argv[0], "-c", program], stdout=log, start_new_session=True
    )
    child.log = tmp_path / "log"
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        samples, code, end = soak.watch(child, seconds=1)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert samples and code == 0 and end == "stopped\n"


def test_flat_memory_has_no_growth(soak):
    assert soak.report(soak.divide(readings(*[100] * 13), 6)) == 0


def test_growth_is_that_of_the_highest_part_over_the_first(soak):
    sizes = [100, 100, 101, 101, 103, 103, 102, 102]
    growth = soak.report(soak.divide(readings(*sizes), 4))
    assert growth == pytest.approx(0.03)


def test_a_peak_of_a_later_part_is_growth_too(soak):
    growth = soak.report(soak.divide(readings(*[100] * 6, 100, 100, 150), 3))
    assert growth == pytest.approx(0.5)


def test_too_few_readings_have_no_parts(soak):
    assert soak.divide(readings(1, 2), 6) == []


def test_the_memory_of_a_process_is_read_and_is_0_after_its_end(soak):
    assert 2**20 < soak.resident(os.getpid()) < 2**36
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.communicate()
    assert soak.resident(child.pid) == 0
