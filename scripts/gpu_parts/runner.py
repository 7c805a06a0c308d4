"""Run the cases of all parts within their time boxes, and write their results.

This process never uses JAX: it would hold most of the GPU's memory.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpu_parts import program
from gpu_parts.case import Case, run_case
from gpu_parts.result_line import result_line

from tempseg_jax.io.json_files import write_json


class Part(NamedTuple):
    """A group of cases with one time box and one file of results."""

    name: str
    minutes: float  # for each call of the command
    cases: Callable[[Any], dict[str, Case]]

    @property
    def longest_s(self) -> float:
        """Seconds of one case: half of the box, so that one that hangs leaves time."""
        return 60 * self.minutes / 2


class Day:
    """A folder of results, and the time at which this call must end."""

    def __init__(self, out: Path, *, deadline: float, shortest_s: float):
        """Use a folder, which is created.

        Args:
            out: The folder.
            deadline: A time of `time.monotonic`.
            shortest_s: A case is not started with less time than this, in seconds.
        """
        self.out, self.deadline, self.shortest_s = out, deadline, shortest_s
        self._length = deadline - time.monotonic()
        self._program = program.version()
        (out / "logs").mkdir(parents=True, exist_ok=True)

    def run(self, parts: Sequence[Part], settings: Any) -> int:
        """Run what is not finished; return the number of cases that are left.

        Cases that failed in an earlier call, or needed all the time that a call can
        give them and more, are tried again after all others. Results of other options,
        such as sizes, are replaced; those of another version of the program are not,
        which is said.
        """
        cases = {part.name: part.cases(settings) for part in parts}
        earlier = {part.name: self._current(part, cases[part.name]) for part in parts}
        self._warn_of_other_versions(earlier)
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

    def _warn_of_other_versions(self, earlier: dict[str, dict[str, dict]]) -> None:
        for part, results in earlier.items():
            others = [
                name
                for name, result in results.items()
                if result["status"] == "done"
                and result.get("program") != self._program["program"]
            ]
            if others:
                print(
                    f"{self.out / part}.json: measured with another version of the "
                    f"program, and kept: {', '.join(others)}; to measure this "
                    "version, choose another --out",
                    flush=True,
                )

    def _run_part(self, part: Part, todo: dict[str, Case]) -> None:
        box = time.monotonic() + 60 * part.minutes
        for name, case in todo.items():
            limit = min(box, self.deadline) - time.monotonic()
            if case.unavailable:
                if _status(self._read(part), name) == "done":
                    continue  # of an earlier call that could run it
                result = {"status": "not available", "reason": case.unavailable}
            elif limit < self.shortest_s:
                continue
            else:
                log = self.out / "logs" / f"{part.name}-{name}"
                limit = min(limit, part.longest_s)
                result = run_case(case, limit_s=limit, log=log) | self._program
            result["options"] = case.options
            results = self._read(part) | {name: result}
            write_json(self._path(part), results)
            print(result_line(part.name, name, result), flush=True)

    def _has_failed(self, result: dict, part: Part, case: Case) -> bool:
        longest = min(part.longest_s, self._length)
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
