"""A short part of the campaign of faults; `pytest -m faults` runs a longer one."""

import re
import subprocess
import sys

import pytest

from tests.support import ROOT


def campaign(*flags):
    """Run scripts/faults.py, which ends with code 1 if there is a finding."""
    command = [sys.executable, str(ROOT / "scripts" / "faults.py"), *flags]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (total,) = re.findall(r"^\| all \| (\d+) ", run.stdout, re.MULTILINE)
    return int(total)


def test_damaged_files_are_read_or_refused_in_one_line():
    only = "--only=images,masks,weights,archives,mat"
    assert campaign("--minutes=60", "--count=8", only) == 40


@pytest.mark.faults
def test_no_fault_is_silent_or_hangs_or_ends_in_a_traceback():
    assert campaign("--minutes=10", "--seed=1") > 100
