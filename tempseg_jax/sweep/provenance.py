"""Where and with what a sweep was run, for whoever reads its numbers."""

import datetime
import os
import platform
import subprocess
from pathlib import Path

import jax


def provenance() -> dict[str, str]:
    """Return commit, machine and versions; what cannot be told is left out."""
    devices = jax.devices()
    found = {
        "commit": _commit(),
        "device": f"{len(devices)} × {devices[0].device_kind}",
        "processor": f"{_processor()}, {os.cpu_count()} threads",
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
    return {name: value for name, value in found.items() if value}


def now() -> str:
    """Return date and time, to the minute."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _commit() -> str:
    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", "-C", folder, *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + (" and changes" * bool(changed))
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.machine()
