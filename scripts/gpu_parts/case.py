"""Run one case: a command with a time limit, whose JSON lines are its results."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

GRACE_S = 20
"""Seconds between SIGTERM, after which training saves its state, and SIGKILL."""

_ERROR = re.compile(r"(error: |FATAL |\w[\w.]*(Error|Exception|Exit)\b).*")
_LINES, _LONGEST = 15, 2000  # of an error that are kept: lines, and characters of each


class Case(NamedTuple):
    """One command; the lines of its standard output that are JSON are its results."""

    command: Sequence[str | Path] = ()
    env: dict[str, str] = {}
    unavailable: str = ""  # why it cannot run here; empty if it can
    resumes: bool = False  # whether a second run goes on where the first was stopped
    read: Callable[[], list[dict]] = list  # results that it leaves in files

    @property
    def options(self) -> dict[str, str]:
        """What its results depend on: options and environment.

        Of paths only the names of files count: folders differ between machines.
        """
        words = (str(word).partition("=") for word in self.command)
        options = {name: value for name, _, value in words if name.startswith("-")}
        return {
            name: Path(value).name
            for name, value in (options | self.env).items()
            if "/" not in value or Path(value).suffix
        }


def run_case(case: Case, *, limit_s: float, log: Path) -> dict[str, Any]:
    """Run a command for at most `limit_s` seconds; return its status and results.

    Its status is "done", "failed" (with the error and the last lines of its error
    output; also if it has no result), or "stopped" at the time limit. All processes
    that it started end with it.
    """
    start = time.monotonic()
    output, errors = log.with_suffix(".out"), log.with_suffix(".err")
    command = list(map(str, case.command))
    with output.open("w") as stdout, errors.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | case.env,
            # In a group of its own, but in this session: whatever ends the session
            # ends the case too, which would otherwise keep the card's memory.
            process_group=0,
        )
        try:
            process.wait(limit_s)
            status = "failed" if process.returncode else "done"
        except subprocess.TimeoutExpired:
            status = "stopped"
        finally:
            _end(process)
    result = {
        "status": status,
        "seconds": round(time.monotonic() - start, 1),
        "limit_s": round(limit_s, 1),
        "command": " ".join(command),
        "env": case.env,
        "results": _json_lines(output) + case.read(),
    }
    if status == "failed":
        result |= _error(errors)
        result["exit_status"] = process.returncode
    elif status == "stopped":
        result["error"] = f"the time limit of {limit_s:.0f} s was over"
    elif not result["results"]:
        result["status"] = "failed"
        result |= _error(errors) | {"error": "it ended without an error or a result"}
    return result


def _end(process: subprocess.Popen) -> None:
    """End a command that still runs, and whatever it left behind."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):  # usually none of the group is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _error(path: Path) -> dict[str, Any]:
    """Return the last line that names an error, else the last one, and the last lines.

    The last line alone is of no use: JAX adds a note on its traceback to each error.
    """
    lines = path.read_text(errors="replace").split("\n")
    lines = [line[:_LONGEST] for line in lines if line.strip()]
    named = [line for line in lines if _ERROR.match(line)]
    return {
        "error": next(reversed(named or lines), ""),
        "error_lines": lines[-_LINES:],
    }


def _json_lines(path: Path) -> list[dict]:
    """Return the lines that are JSON objects; one that was cut off is left out."""
    results = []
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("{"):
            try:
                results.append(json.loads(line))
            except ValueError:
                continue
    return results
