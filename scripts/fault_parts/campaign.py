"""The bookkeeping of a campaign: what was injected and what came of it."""

import collections
from typing import NamedTuple

from fault_parts.child import Outcome


class Finding(NamedTuple):
    """An injection whose outcome is not allowed."""

    scenario: str
    seed: int  # repeats it: --only=SCENARIO --first=SEED --count=1
    what: str


class Campaign:
    """Counts of the outcomes of each scenario, and the findings."""

    def __init__(self) -> None:
        self.counts: dict[str, collections.Counter] = {}
        self.findings: list[Finding] = []
        self.peak = 0

    def add(self, scenario: str, outcome: str, *, number: int = 1) -> None:
        """Count an outcome: "survived", "refused" or "finding"."""
        counts = self.counts.setdefault(scenario, collections.Counter())
        counts[outcome] += number

    def finding(self, scenario: str, seed: int, what: str) -> None:
        """Record an outcome that is not allowed."""
        self.findings.append(Finding(scenario, seed, what))
        print(_shown(self.findings[-1]), flush=True)
        self.add(scenario, "finding")

    def judge(self, scenario: str, seed: int, done: Outcome, what: str) -> bool:
        """Record how a process ended, and return whether it ended with code 0.

        The caller records what a process with code 0 produced.
        """
        self.peak = max(self.peak, done.peak)
        if done.hung:
            self.finding(scenario, seed, f"{what}: it hangs")
        elif done.refused:
            self.add(scenario, "refused")
        elif done.code:
            text = " | ".join(done.errors[-2:])[-400:]
            self.finding(scenario, seed, f"{what}: exit code {done.code}: {text}")
        return not done.hung and not done.code

    def table(self) -> str:
        """Return the table of outcomes in Markdown, and the findings."""
        names = ("survived", "refused", "finding")
        total = collections.Counter()
        rows = [
            "| scenario | injected | survived | refused with a message | findings |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for scenario, counts in sorted(self.counts.items()):
            total.update(counts)
            rows.append(_row(scenario, [counts[name] for name in names]))
        rows.append(_row("all", [total[name] for name in names]))
        rows.append(f"\nPeak memory of a process: {self.peak / 2**30:.1f} GiB")
        rows += map(_shown, self.findings)
        return "\n".join(rows)


def _shown(finding: Finding) -> str:
    scenario, seed, what = finding
    return f"finding: --only={scenario} --first={seed} --count=1: {what}"


def _row(name: str, numbers: list[int]) -> str:
    cells = [name, sum(numbers), *numbers]
    return "| " + " | ".join(map(str, cells)) + " |"
