"""Run the cases of all parts as commands with a time limit, and write their results.

This process never uses JAX: it would hold most of the GPU's memory.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tempseg_jax.io.json_files import write_json

GRACE_S = 20
"""Seconds between SIGTERM, after which training saves its state, and SIGKILL."""

SHORTEST_S = 10
"""A case is not started with less time than this."""


class Case(NamedTuple):
    """One command; the lines of its standard output that are JSON are its results."""

    command: Sequence[str | Path] = ()
    env: dict[str, str] = {}
    unavailable: str = ""  # why it cannot run here; empty if it can
    resumes: bool = False  # whether a second run goes on where the first was stopped

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


class Part(NamedTuple):
    """A group of cases with one time box and one file of results."""

    name: str
    minutes: float  # for each call of the command
    cases: Callable[[Any], dict[str, Case]]


class Day:
    """A folder of results, and the time at which this call must end."""

    def __init__(self, out: Path, *, deadline: float):
        """Use `out`, which is created; `deadline` is a time of `time.monotonic`."""
        self.out, self.deadline = out, deadline
        self._length = deadline - time.monotonic()
        (out / "logs").mkdir(parents=True, exist_ok=True)

    def run(self, parts: Sequence[Part], settings: Any) -> int:
        """Run what is not finished; return the number of cases that are left.

        Cases that failed in an earlier call, or needed all the time that a call can
        give them and more, are tried again after all others. Results of other options,
        such as sizes, are replaced.
        """
        cases = {part.name: part.cases(settings) for part in parts}
        earlier = {part.name: self._current(part, cases[part.name]) for part in parts}
        for failed in (False, True):
            for part in parts:
                results = earlier[part.name]
                todo = {
                    name: case
                    for name, case in cases[part.name].items()
                    if _status(results, name) != "done"
                    and self._has_failed(results.get(name, {}), part, case) == failed
                }
                self._run_part(part, todo)
        return sum(
            not case.unavailable
            and _status(self._current(part, cases[part.name]), name) != "done"
            for part in parts
            for name, case in cases[part.name].items()
        )

    def _current(self, part: Part, cases: dict[str, Case]) -> dict[str, dict]:
        """Return the results of the same options, by case."""
        return {
            name: result
            for name, result in self._read(part).items()
            if name in cases and result.get("options") == cases[name].options
        }

    def _run_part(self, part: Part, todo: dict[str, Case]) -> None:
        box = time.monotonic() + 60 * part.minutes
        for name, case in todo.items():
            limit = min(box, self.deadline) - time.monotonic()
            if case.unavailable:
                if _status(self._read(part), name) == "done":
                    continue  # of an earlier call that could run it
                result = {"status": "not available", "reason": case.unavailable}
            elif limit < SHORTEST_S:
                continue
            else:
                log = self.out / "logs" / f"{part.name}-{name}"
                result = run_case(case, limit_s=limit, log=log)
            result["options"] = case.options
            results = self._read(part) | {name: result}
            write_json(self._path(part), results)
            words = result.get("error") or result.get("reason") or ""
            print(f"{part.name} {name}: {result['status']} {words}".strip(), flush=True)

    def _has_failed(self, result: dict, part: Part, case: Case) -> bool:
        longest = min(60 * part.minutes, self._length)
        had_all_time = result.get("limit_s", 0.0) > 0.9 * longest
        return result.get("status") == "failed" or (
            result.get("status") == "stopped" and had_all_time and not case.resumes
        )

    def _path(self, part: Part) -> Path:
        return self.out / f"{part.name}.json"

    def _read(self, part: Part) -> dict[str, dict]:
        path = self._path(part)
        return json.loads(path.read_text()) if path.exists() else {}


def _status(results: dict[str, dict], name: str) -> str:
    return results.get(name, {}).get("status", "")


def run_case(case: Case, *, limit_s: float, log: Path) -> dict[str, Any]:
    """Run a command for at most `limit_s` seconds; return its status and results.

    Its status is "done", "failed" (with the last line of its error output), or
    "stopped" at the time limit. All processes that it started end with it.
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
            start_new_session=True,
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
        "results": _json_lines(output),
    }
    if status == "failed":
        lines = errors.read_text(errors="replace").split("\n")
        result["error"] = next((x for x in reversed(lines) if x.strip()), "")[:2000]
        result["exit_status"] = process.returncode
    elif status == "stopped":
        result["error"] = f"the time limit of {limit_s:.0f} s was over"
    return result


def _end(process: subprocess.Popen) -> None:
    """End a command that still runs, and whatever it left behind."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the usual case: no process of the group is left
    process.wait()


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
