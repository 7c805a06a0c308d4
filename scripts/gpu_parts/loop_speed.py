"""Train as `tempseg_jax.main` does, and print the loop's speed as one JSON object.

    python scripts/gpu_parts/loop_speed.py --config=configs/demo.py --workdir=DIR

All options are those of `python -m tempseg_jax.main`; nothing is evaluated.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from tempseg_jax.workdir.metrics_writer import read_metrics


def main(arguments: list[str]) -> int:
    """Run the training; return its exit status."""
    (workdir,) = (x.split("=", 1)[1] for x in arguments if x.startswith("--workdir="))
    command = [sys.executable, "-m", "tempseg_jax.main", *arguments]
    command.append("--config.evaluate_every_epochs=0.0")
    command.append("--config.optimizer.warmup_epochs=0")
    # Standard output is for the result.
    root = Path(__file__).parents[2]
    status = subprocess.run(command, stdout=sys.stderr, cwd=root).returncode
    if status:
        return status
    lines = [x for x in read_metrics(workdir) if "train/images_per_s" in x]
    # The first lines include filling the cache of decoded images.
    late = lines[len(lines) // 2 :]

    def median(name: str) -> float:
        return round(statistics.median(x[f"train/{name}"] for x in late), 4)

    result = {"workdir": workdir, "steps": lines[-1]["step"]}
    result |= {name: median(name) for name in ("images_per_s", "data_wait", "loss")}
    result["first_images_per_s"] = round(lines[0]["train/images_per_s"], 4)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
