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


def test_the_end_of_a_campaign_kills_the_processes_that_still_run():
    program = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "from fault_parts import child\n"
        "ended = child.Child(lambda: None)\n"
        "ended.wait()\n"
        "running = child.Child(lambda: time.sleep(600))\n"
        "child.kill_running()\n"
        "running.signal(0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert (
        run.stderr.splitlines()[-1] == "ProcessLookupError: [Errno 3] No such process"
    )


@pytest.mark.faults
def test_no_fault_is_silent_or_hangs_or_ends_in_a_traceback():
    assert campaign("--minutes=10", "--seed=1") > 100
