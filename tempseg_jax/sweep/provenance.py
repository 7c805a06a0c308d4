"""Provenance of a run: commit, hardware, versions of the libraries, and date."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

from tempseg_jax.io.git_commit import git_commit

LIBRARIES = ("jax", "flax", "optax", "grain", "orbax-checkpoint", "numpy")
"""Distributions whose installed versions are recorded."""


def provenance() -> dict[str, str]:
    """Return commit, hardware and versions, without those that are not known."""
    devices = jax.devices()
    facts = {
        "commit": git_commit(),
        "device": f"{len(devices)} × {devices[0].device_kind}",
        "processor": f"{_processor()}, {os.cpu_count()} threads",
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
    }
    return {name: value for name, value in facts.items() if value}


def now() -> str:
    """Return date and time in UTC, to the minute."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _version(distribution: str) -> str:
    """Return the installed version; empty if the distribution has no metadata."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.machine()
