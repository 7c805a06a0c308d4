import os
import subprocess
import sys

import pytest

from tempseg_jax.cli import huge_pages

PROGRAM = """
import os, sys
from tempseg_jax.cli import huge_pages
huge_pages.restart()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), *sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
@pytest.mark.parametrize(
    ("environment", "tunables"),
    [
        ({"JAX_PLATFORMS": "cpu"}, "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=2"),
        ({"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": ""}, ""),
        ({"JAX_PLATFORMS": "cuda"}, "None"),
    ],
)
def test_a_command_restarts_once_with_its_arguments_if_on_a_cpu(environment, tunables):
    inherited = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--steps=3", "a b"],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=60)
    assert output == f"{process.pid} {tunables} --steps=3 a b\n"


def test_outside_linux_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("restarted"))
    huge_pages.restart()


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that fakes device files and installed packages."""

    def fake(device_files, packages):
        for name in device_files:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
        monkeypatch.setattr(huge_pages, "_DEV", tmp_path)
        monkeypatch.setattr(
            huge_pages.importlib.util,
            "find_spec",
            lambda name: name if name in packages else None,
        )
        monkeypatch.setattr(
            huge_pages.importlib.metadata, "entry_points", lambda group: ()
        )

    return fake


@pytest.mark.parametrize(
    ("device_files", "packages", "on_cpu"),
    [
        (["null", "tty0"], [], True),
        (["nvidia0", "nvidiactl"], [], True),
        (["null"], ["jax_plugins"], True),
        (["nvidia3"], ["jax_plugins"], False),
        (["dxg"], ["jax_plugins"], False),
        (["kfd"], ["jax_plugins"], False),
        (["accel0"], ["libtpu"], False),
        (["vfio/0"], ["libtpu"], False),
    ],
)
def test_an_accelerator_needs_a_device_and_a_plugin(
    machine, monkeypatch, device_files, packages, on_cpu
):
    machine(device_files, packages)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert huge_pages.computes_on_cpu() is on_cpu


@pytest.mark.parametrize(
    ("platforms", "on_cpu"),
    [("cpu", True), ("cpu,cuda", True), ("cuda,cpu", False), ("tpu", False)],
)
def test_the_first_of_jax_platforms_decides(machine, monkeypatch, platforms, on_cpu):
    machine(["null"] if not on_cpu else ["nvidia0"], ["jax_plugins"])
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert huge_pages.computes_on_cpu() is on_cpu


def test_an_empty_jax_platforms_has_no_effect(machine, monkeypatch):
    machine(["nvidia0"], ["jax_plugins"])
    monkeypatch.setenv("JAX_PLATFORMS", "")
    assert huge_pages.computes_on_cpu() is False
