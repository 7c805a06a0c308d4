"""The scores of the runs of a sweep that are finished, as results of a case."""

import json
from pathlib import Path
from typing import Any


def finished_runs(sweep: Path) -> list[dict[str, Any]]:
    """Return cell, seed, seconds, and the scores on each split, for every run."""
    results = []
    for path in sorted(sweep.glob("*/seed*/final.json")):
        final = json.loads(path.read_text())
        result = {
            "cell": path.parts[-3],
            "seed": int(path.parts[-2].removeprefix("seed")),
            "diverged": "diverged" in final,
            "seconds": round(final.get("seconds", 0.0), 1) or None,  # not known
        }
        for split, scores in final.get("splits", {}).items():
            for name in ("miou", "pacc"):
                result[f"{split}_{name}"] = round(scores[name], 5)
        results.append(result)
    return results
