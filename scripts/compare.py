"""Draw several runs' curves in one figure.

python scripts/compare.py runs/pretrained runs/scratch --out=curves.png
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tempseg_jax import command, pictures
from tempseg_jax.writer import read_metrics


def main() -> None:
    """Read each workdir's metrics.jsonl and draw them under the folders' names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdirs", type=Path, nargs="+", metavar="WORKDIR")
    parser.add_argument("--out", type=Path, default=Path("curves.png"))
    arguments = parser.parse_args()
    with command.one_line_errors(debug=False):
        runs = {folder.name: read_metrics(folder) for folder in arguments.workdirs}
        for folder in arguments.workdirs:
            if not runs[folder.name]:
                raise FileNotFoundError(
                    f"{folder}/metrics.jsonl: nothing to draw; is it the workdir of a "
                    "run?"
                )
        pictures.save_comparison(runs, arguments.out)


if __name__ == "__main__":
    main()
