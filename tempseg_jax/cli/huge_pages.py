"""Memory in huge pages of 2 MiB and few arenas, for training on a CPU."""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

_TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=2"
_DEV = Path("/dev")
_ACCELERATOR_FILES = (
    "nvidia*",
    "kfd",  # AMD GPUs
    "dxg",  # GPUs under WSL 2
    "accel*",  # TPUs up to v4
    "vfio/*",  # TPUs from v5e
)


def restart() -> None:
    """Restart this command with huge pages if JAX will compute on a CPU.

    XLA's CPU client allocates the memory of each training step by malloc and frees it
    after the step; with pages of 4 KiB the page faults take 10 to 25 % of a ResNet-50
    step. glibc reads the setting only when a process starts, so the command is executed
    again, which takes 1.2 to 1.6 s. On a GPU or TPU this would be lost time.

    With an arena of memory for every few threads, as by default, saving and evaluating
    leave more and more free memory between the blocks that are in use; two arenas are
    no slower (docs/reliability.md).

    Nothing happens if JAX will use an accelerator (see `computes_on_cpu`), outside
    Linux, or if the environment variable GLIBC_TUNABLES is set. Setting it to the empty
    string therefore turns huge pages off.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    if computes_on_cpu():
        os.environ["GLIBC_TUNABLES"] = _TUNABLES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def computes_on_cpu() -> bool:
    """Predict within milliseconds, without initializing JAX, whether it uses the CPU.

    If JAX_PLATFORMS is set, JAX uses the first platform in it. Otherwise JAX uses an
    accelerator if a plugin for one is installed and the device is present. GPUs that
    are hidden by CUDA_VISIBLE_DEVICES still count as present; JAX_PLATFORMS=cpu says
    more clearly that they are not to be used. A wrong prediction changes only the
    speed.
    """
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms.split(",")[0].strip().lower() == "cpu"
    return not (_device_is_present() and _plugin_is_installed())


def _device_is_present() -> bool:
    return any(any(_DEV.glob(pattern)) for pattern in _ACCELERATOR_FILES)


def _plugin_is_installed() -> bool:
    """Whether JAX will find a plugin: as `jax_plugins`, an entry point, or libtpu."""
    packages = ("jax_plugins", "libtpu")
    return any(importlib.util.find_spec(name) for name in packages) or bool(
        importlib.metadata.entry_points(group="jax_plugins")
    )
