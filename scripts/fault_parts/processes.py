"""Scenarios of a training with two processes, connected by Gloo."""

import random
import shutil
import signal
import socket
import time
from pathlib import Path

from fault_parts.campaign import Campaign
from fault_parts.child import LIMIT, PATIENCE, Child, Outcome, command
from fault_parts.runs import Runs, difference, end_state

INITIALIZATION_TIMEOUT = 20  # seconds to wait for the other process, instead of minutes
# How JAX ends a process that waits for one that has died, for example in a save.
_ABORTED = ("another task died", "coordination service", "CoordinationService")


class Processes:
    """A training by two processes, and how it ends if nothing disturbs it."""

    def __init__(self, arguments: list[str], *, scratch: Path):
        """Train once without a fault.

        Args:
            arguments: The flags of a training, without --workdir.
            scratch: A folder for the workdirs.
        """
        self._arguments, self._scratch = arguments, scratch
        reference = scratch / "reference"
        for _ in range(2):  # the first time, it also fills the compilation cache
            shutil.rmtree(reference, ignore_errors=True)
            start = time.monotonic()
            for child in self.train(reference):
                Runs.must(child)
            self.seconds = time.monotonic() - start
        self._limit = max(LIMIT, PATIENCE * self.seconds)
        self.expected = end_state(reference)

    def train(self, workdir: Path) -> list[Child]:
        """Start a training by two processes."""
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            address = f"localhost:{probe.getsockname()[1]}"
        shared = [f"--workdir={workdir}", f"--coordinator_address={address}"]
        shared.append("--num_processes=2")
        flags = [*self._arguments, *shared]
        return [
            Child(command("main", [*flags, f"--process_id={i}"]), before=_shorten)
            for i in range(2)
        ]

    def kill(self, campaign: Campaign, name: str, seed: int) -> None:
        """Stop one or both processes at random times, then resume with two."""
        random_, workdir = random.Random(seed), self._scratch / f"{name}-{seed}"
        injected = 0
        for _ in range(random_.randint(1, 3)):
            number = random_.choice((signal.SIGKILL,) * 4 + (signal.SIGTERM,))
            victims = random_.choice(([0], [1], [0, 1], [1, 0]))
            children = self.train(workdir)
            time.sleep(random_.uniform(0.05, 1) * self.seconds)
            for victim in victims:
                children[victim].signal(number)
                time.sleep(random_.choice((0, random_.uniform(0, 1))))
            ended = [child.wait(self._limit) for child in children]
            injected += sum(ended[i].was_stopped for i in victims)
            wrong = [_wrong(x) for x in ended if _wrong(x)]
            campaign.peak = max(campaign.peak, *(x.peak for x in ended))
            if wrong:
                what = f"{signal.Signals(number).name} to {victims}: {wrong[0]}"
                campaign.finding(name, seed, what)
        self._resume(campaign, name, seed, workdir, injected)

    def two(self, campaign: Campaign, name: str, seed: int) -> None:
        """Start a training by two processes twice in one workdir."""
        random_, workdir = random.Random(seed), self._scratch / f"{name}-{seed}"
        trainings = [self.train(workdir)]
        time.sleep(random_.choice((0, random_.uniform(0, 1) * self.seconds)))
        trainings.append(self.train(workdir))
        for children in trainings:
            ended = [child.wait(self._limit) for child in children]
            if len({x.code for x in ended}) > 1:
                codes = [x.code for x in ended]
                campaign.finding(name, seed, f"exit codes {codes} of one training")
            for done in ended:
                if campaign.judge(name, seed, done, "two at once"):
                    campaign.add(name, "survived")
        self._resume(campaign, name, seed, workdir, 0)

    def _resume(
        self, campaign: Campaign, name: str, seed: int, workdir: Path, injected: int
    ) -> None:
        """Train to the end without a fault; compare with the undisturbed run."""
        for done in [child.wait(self._limit) for child in self.train(workdir)]:
            if done.code:
                campaign.judge(name, seed, done, "resumed")
                return
        found = difference(end_state(workdir), self.expected)
        if found:
            campaign.finding(name, seed, f"it ends with another {found}")
        elif injected:
            campaign.add(name, "survived", number=injected)
        shutil.rmtree(workdir, ignore_errors=True)


def _wrong(done: Outcome) -> str | None:
    """Return what is wrong with the end of a process whose run was disturbed.

    It ends as if undisturbed, by the signal, with one line, or by JAX, which aborts it
    and says that another process has died.
    """
    if done.hung:
        return "it hangs"
    if "Traceback (most recent call last)" in done.err:
        return "traceback: " + " | ".join(done.err.splitlines()[-2:])[-400:]
    if done.code in (0, -signal.SIGKILL, -signal.SIGTERM):
        return None
    lines = [x for x in done.err.splitlines() if x.startswith("error: ")]
    if done.code == 1 and len(lines) == 1:
        return None
    if done.code == -signal.SIGABRT and any(x in done.err for x in _ABORTED):
        return None
    return f"exit code {done.code}: {' | '.join(done.err.splitlines()[-2:])[-400:]}"


def _shorten() -> None:
    from tempseg_jax.cli import distributed

    distributed.INITIALIZATION_TIMEOUT = INITIALIZATION_TIMEOUT
