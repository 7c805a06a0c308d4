import os
import subprocess
import sys

import pytest

from tempseg_jax.cli import huge_pages

PROGRAM = """
import os, sys
from tempseg_jax import huge_pages
huge_pages.restart_with_them()
print(os.getpid(), os.environ["GLIBC_TUNABLES"], *sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
@pytest.mark.parametrize("own_setting", [None, ""])
def test_a_command_restarts_itself_once_with_its_arguments(own_setting):
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    if own_setting is not None:
        environment["GLIBC_TUNABLES"] = own_setting
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--steps=3", "a b"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=60)

    setting = "glibc.malloc.hugetlb=1" if own_setting is None else own_setting
    assert output == f"{process.pid} {setting} --steps=3 a b\n"


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("restarted"))
    huge_pages.restart_with_them()
