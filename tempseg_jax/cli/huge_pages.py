"""Memory in pages of 2 MiB, for training on a CPU."""

import os
import sys

_ASK_FOR_THEM = "glibc.malloc.hugetlb=1"


def restart_with_them() -> None:
    """Start this command again, its memory in huge pages where the kernel has them.

    XLA's CPU client takes a step's memory from malloc and gives it back after the step:
    with pages of 4 KiB their faults are a tenth to a quarter of a ResNet-50 step.
    glibc takes the setting at a program's start alone. Does nothing where something in
    GLIBC_TUNABLES is set already; `GLIBC_TUNABLES=` keeps small pages.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = _ASK_FOR_THEM
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
