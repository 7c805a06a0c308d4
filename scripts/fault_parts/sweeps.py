"""Scenarios of a sweep of two runs: it is killed and resumed, or started twice."""

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from fault_parts.campaign import Campaign
from fault_parts.child import LIMIT, PATIENCE, Child, Outcome, command
from fault_parts.runs import TIMINGS, Runs

# Other at each repetition, or where the sweep was trained.
_NOT_COMPARED = ("seconds", "provenance")
_UNFINISHED = "not all runs are finished"


class Sweeps:
    """A sweep of two cells and one seed, and what it publishes undisturbed."""

    def __init__(self, arguments: list[str], *, scratch: Path):
        """Run it once without a fault.

        Args:
            arguments: The flags of a training, without --workdir.
            scratch: A folder for the sweeps.
        """
        flags = ["--table=3", "--seeds=1", "--cells=baseline,adversarial"]
        self._arguments, self._scratch = [*arguments, *flags], scratch
        reference = scratch / "reference"
        for _ in range(2):  # the first time, it also fills the compilation cache
            shutil.rmtree(reference, ignore_errors=True)
            start = time.monotonic()
            Runs.must(self.sweep(reference))
            self.seconds = time.monotonic() - start
        self._limit = max(LIMIT, PATIENCE * self.seconds)
        self.expected = published(reference)

    def sweep(self, folder: Path) -> Child:
        """Start the sweep, or resume it by the same command."""
        return Child(command("sweep", [*self._arguments, f"--workdir={folder}"]))

    def kill(self, campaign: Campaign, name: str, seed: int) -> None:
        """Stop a sweep at random times, five times at most, and resume it."""
        random_, folder = random.Random(seed), self._scratch / f"{name}-{seed}"
        injected, done = 0, None
        for _ in range(5):
            child = self.sweep(folder)
            time.sleep(random_.uniform(0.1, 1.0) * self.seconds)
            child.signal(random_.choice((signal.SIGKILL, signal.SIGTERM)))
            done = child.wait(self._limit)
            stopped = done.was_stopped or done.code == 128 + signal.SIGINT
            injected += stopped
            if not stopped and not _stopped_in_words(done):
                break
        self._resume(campaign, name, seed, folder, injected)

    def two(self, campaign: Campaign, name: str, seed: int) -> None:
        """Start a sweep twice at once, and kill one of them; then resume it."""
        random_, folder = random.Random(seed), self._scratch / f"{name}-{seed}"
        children = [self.sweep(folder)]
        time.sleep(random_.choice((0, random_.uniform(0, 0.5) * self.seconds)))
        children.append(self.sweep(folder))
        time.sleep(random_.uniform(0.1, 1.0) * self.seconds)
        victim = random_.randrange(2)
        children[victim].signal(signal.SIGKILL)
        ended = [child.wait(self._limit) for child in children]
        other = ended[1 - victim]
        if not _stopped_in_words(other):
            campaign.judge(name, seed, other, "the other of two was killed")
        self._resume(campaign, name, seed, folder, 1 + ended[victim].was_stopped)

    def _resume(
        self, campaign: Campaign, name: str, seed: int, folder: Path, injected: int
    ) -> None:
        """Sweep to the end without a fault; compare with the undisturbed sweep."""
        done = self.sweep(folder).wait(self._limit)
        if not campaign.judge(name, seed, done, "resumed"):
            return
        found = differences(published(folder), self.expected)
        if found:
            campaign.finding(name, seed, f"another {', '.join(found)}")
        elif injected:
            campaign.add(name, "survived", number=injected)
        shutil.rmtree(folder, ignore_errors=True)


def published(folder: Path) -> dict[str, Any]:
    """Return what a copy of the sweep's finished runs holds, by file."""
    from tempseg_jax.sweep.copies import copy_sweep

    copy = folder.with_name(f"{folder.name}-copy")
    copy_sweep(folder, copy)
    files = {
        str(path.relative_to(copy)): _content(path)
        for path in sorted(copy.rglob("*"))
        if path.is_file()
    }
    shutil.rmtree(copy)
    return files


def differences(actual: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return the names of files that only one of both has, or that are not equal."""
    names = sorted(actual.keys() | expected.keys())
    return [name for name in names if actual.get(name) != expected.get(name)]


def _content(path: Path) -> Any:
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {x: (arrays[x].tobytes(), arrays[x].shape) for x in arrays.files}
    if path.suffix == ".jsonl":
        lines = map(json.loads, path.read_text().splitlines())
        return [{k: v for k, v in x.items() if not k.endswith(TIMINGS)} for x in lines]
    if path.suffix == ".json":
        fields = json.loads(path.read_text())
        return {k: v for k, v in fields.items() if k not in _NOT_COMPARED}
    return path.read_bytes()


def _stopped_in_words(done: Outcome) -> bool:
    """Whether a sweep says that runs are left, which were stopped or are another's."""
    return done.code == 1 and len(done.errors) == 1 and _UNFINISHED in done.errors[0]
