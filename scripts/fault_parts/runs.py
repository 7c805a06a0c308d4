"""Scenarios that kill, starve or double a training, an evaluation or a prediction."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_parts import mutate
from fault_parts.campaign import Campaign
from fault_parts.child import LIMIT, PATIENCE, Child, Outcome, command

TIMINGS = ("images_per_s", "steps_per_s", "data_wait")
_LOG = ("metrics.jsonl", "metrics.digest.json")
_LOG_CHANGED = "metrics.jsonl has changed since training wrote it"  # a warning


class Runs:
    """A training of a few steps, and how it ends if nothing disturbs it."""

    def __init__(self, arguments: list[str], *, scratch: Path, images: Path):
        """Train, evaluate and predict once without a fault.

        Args:
            arguments: The flags of a training, without --workdir.
            scratch: A folder for the workdirs.
            images: A folder of photographs to predict.
        """
        self._arguments, self._scratch, self._images = arguments, scratch, images
        self.reference = scratch / "reference"
        self.must(self.train(self.reference))  # also fills the compilation cache
        shutil.rmtree(self.reference)
        start = time.monotonic()
        self.must(self.train(self.reference))
        self.seconds = time.monotonic() - start
        self._limit = max(LIMIT, PATIENCE * self.seconds)
        self.expected = end_state(self.reference)
        self.must(self.evaluate(self.reference))
        self.must(self.predict(self.reference, scratch / "predicted"))
        self._outputs = contents(scratch / "predicted")

    @staticmethod
    def must(child: Child) -> None:
        """Wait for a process without a fault.

        Raises:
            RuntimeError: If it fails.
        """
        done = child.wait(600)
        if done.code:
            raise RuntimeError(f"a run without a fault failed: {done.err}")

    def train(self, workdir: Path, *, before: Callable = lambda: None) -> Child:
        """Start a training."""
        arguments = [*self._arguments, f"--workdir={workdir}"]
        return Child(command("main", arguments), before=before)

    def evaluate(self, workdir: Path) -> Child:
        """Start an evaluation."""
        flags = [f"--workdir={workdir}", "--mode=eval", "--nofit_temperature"]
        return Child(command("main", flags))

    def predict(self, workdir: Path, out: Path) -> Child:
        """Start a prediction."""
        flags = [f"--workdir={workdir}", f"--out={out}", str(self._images)]
        return Child(command("predict", flags))

    def kill(self, campaign: Campaign, name: str, seed: int) -> None:
        """Kill and resume a training at random times, three times at most."""
        random_, workdir = random.Random(seed), self._scratch / f"{name}-{seed}"
        injected = 0
        for _ in range(3):
            child = self.train(workdir)
            time.sleep(random_.uniform(0.05, 1) * self.seconds)
            child.signal(random_.choice((signal.SIGKILL, signal.SIGTERM)))
            done = child.wait(self._limit)
            injected += done.was_stopped
            if done.code not in (0, -signal.SIGKILL, -signal.SIGTERM):
                campaign.judge(name, seed, done, "a signal")
                break
        self._resume(campaign, name, seed, workdir, injected, "a signal")

    def damage(self, campaign: Campaign, name: str, seed: int) -> None:
        """Stop a training half-way, damage a file of its workdir, and resume it."""
        random_, workdir = random.Random(seed), self._scratch / f"{name}-{seed}"
        shutil.copytree(self.reference, workdir)
        shutil.rmtree(workdir / "checkpoints" / str(self.last_step))
        # Only a part of the files is used by a resume; any of them is damaged.
        files = sorted(x for x in workdir.rglob("*") if x.is_file())
        file = random_.choice(files)
        what = f"{mutate.damage(file, random_)} {file.relative_to(workdir)}"
        self._resume(
            campaign, name, seed, workdir, 1, what, log_damaged=file.name in _LOG
        )

    def full_disk(self, campaign: Campaign, name: str, seed: int) -> None:
        """Train with too little space, then go on with enough."""
        random_, workdir = random.Random(seed), self._scratch / f"{name}-{seed}"
        mounted = _mount(workdir, kilobytes=random_.randrange(100, 6000))
        limit = random_.randrange(1_000, 300_000)

        def lower() -> None:
            if not mounted:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        try:
            done = self.train(workdir / "run", before=lower).wait(self._limit)
            if campaign.judge(name, seed, done, "a full disk"):
                campaign.add(name, "survived")
            elif done.refused and mounted:
                _run("mount", "-o", "remount,size=200m", str(workdir))
            if not done.hung:
                self._resume(campaign, name, seed, workdir / "run", 0, "a full disk")
        finally:
            if mounted:
                _run("umount", str(workdir))
        shutil.rmtree(workdir, ignore_errors=True)

    def read_only(self, campaign: Campaign, name: str, seed: int) -> None:
        """Train, or evaluate, on a disk that cannot be written."""
        workdir = self._scratch / f"{name}-{seed}"
        if not _mount(workdir, kilobytes=200_000):
            return  # needs the right to mount
        try:
            shutil.copytree(self.reference, workdir / "run")
            before = end_state(workdir / "run")
            _run("mount", "-o", "remount,ro", str(workdir))
            start = self.train if seed % 2 else self.evaluate
            done = start(workdir / "run").wait(self._limit)
            if campaign.judge(name, seed, done, "a read-only disk"):
                campaign.add(name, "survived")
            if end_state(workdir / "run") != before:
                campaign.finding(name, seed, "a read-only disk has changed")
        finally:
            _run("umount", str(workdir))
        workdir.rmdir()

    def two(self, campaign: Campaign, name: str, seed: int) -> None:
        """Start two trainings in one workdir, or a training and evaluations."""
        random_, workdir = random.Random(seed), self._scratch / f"{name}-{seed}"
        if seed % 2:
            shutil.copytree(self.reference, workdir)
            shutil.rmtree(workdir / "checkpoints" / str(self.last_step))
        first = self.train(workdir)
        time.sleep(random_.uniform(0, 1) * self.seconds * (seed % 3 > 0))
        start = self.evaluate if seed % 2 else self.train
        second = start(workdir).wait(self._limit)
        done = first.wait(self._limit)
        for one in (second, done):
            if campaign.judge(name, seed, one, "two at once"):
                campaign.add(name, "survived")
        self._resume(campaign, name, seed, workdir, 0, "two at once")

    def outputs(self, campaign: Campaign, name: str, seed: int) -> None:
        """Kill a prediction; every file that is there is whole."""
        random_, out = random.Random(seed), self._scratch / f"{name}-{seed}"
        child = self.predict(self.reference, out)
        time.sleep(random_.uniform(0.3, 1.5) * self.seconds / 2)
        child.signal(signal.SIGKILL)
        child.wait(self._limit)
        wrong = [
            name
            for name, data in contents(out).items()
            if data != self._outputs.get(name)
        ]
        if wrong:
            campaign.finding(name, seed, f"not whole: {', '.join(wrong)}")
        else:
            campaign.add(name, "survived")
        shutil.rmtree(out, ignore_errors=True)

    def two_outputs(self, campaign: Campaign, name: str, seed: int) -> None:
        """Predict twice into one folder at once; every file is there and whole."""
        random_, out = random.Random(seed), self._scratch / f"{name}-{seed}"
        first = self.predict(self.reference, out)
        time.sleep(random_.choice((0, random_.uniform(0, 0.3) * self.seconds)))
        second = self.predict(self.reference, out)
        ended = [child.wait(self._limit) for child in (first, second)]
        judged = [campaign.judge(name, seed, x, "two at once") for x in ended]
        if all(judged) and contents(out) == self._outputs:
            campaign.add(name, "survived")
        elif all(judged):
            campaign.finding(
                name, seed, "the files of two at once are not those of one"
            )
        shutil.rmtree(out, ignore_errors=True)

    @property
    def last_step(self) -> int:
        """The last step of the training."""
        return max(map(int, os.listdir(self.reference / "checkpoints")))

    def _resume(
        self,
        campaign: Campaign,
        name: str,
        seed: int,
        workdir: Path,
        injected: int,
        what: str,
        *,
        log_damaged: bool = False,
    ) -> None:
        """Train to the end without a fault; compare with the undisturbed run.

        If the log was damaged, it may differ, and the warning has to say so. Without
        damage there must be no such warning.
        """
        done: Outcome = self.train(workdir).wait(self._limit)
        if not injected and done.code:
            campaign.judge(name, seed, done, f"{what}, then resumed")
        elif not injected or campaign.judge(name, seed, done, what):
            found = difference(end_state(workdir), self.expected)
            warned = _LOG_CHANGED in done.err
            if found == "log" and warned and log_damaged:
                campaign.add(name, "refused", number=injected)
            elif found:
                campaign.finding(name, seed, f"{what}: it ends with another {found}")
            elif warned and not log_damaged:
                campaign.finding(name, seed, f"{what}: it warns of a changed log")
            else:
                campaign.add(name, "survived", number=injected)
        shutil.rmtree(workdir, ignore_errors=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file under its path, without hidden ones."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def end_state(workdir: Path) -> dict[str, Any]:
    """Return the digests of the last checkpoint, its score, and the log."""
    steps = sorted(
        int(x.name) for x in (workdir / "checkpoints").iterdir() if x.name.isdigit()
    )
    last = workdir / "checkpoints" / str(steps[-1])
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {
        "step": steps[-1],
        "digests": json.loads((last / "digests" / "metadata").read_text()),
        "scores": json.loads((last / "scores.json").read_text()),
        "log": [
            {k: v for k, v in json.loads(line).items() if not k.endswith(TIMINGS)}
            for line in lines
        ],
    }


def difference(actual: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """Return the name of the first part of two end states that differs, or None."""
    for name, value in expected.items():
        if actual[name] != value:
            return name
    return None


def _mount(folder: Path, *, kilobytes: int) -> bool:
    folder.mkdir(parents=True)
    if os.geteuid():
        return False
    return _run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder)


def _run(*arguments: str | Path) -> bool:
    return not subprocess.run(arguments, capture_output=True, check=False).returncode
