import importlib
import os
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
