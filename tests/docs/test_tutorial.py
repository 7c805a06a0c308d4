"""docs/tutorial.ipynb runs from its first cell to its last one, and writes pictures."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.support import ROOT

CELLS = json.loads((ROOT / "docs/tutorial.ipynb").read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
STEPS = int(os.environ.get("TUTORIAL_STEPS", 128))


def test_every_cell_is_python_and_no_output_is_stored():
    for source in CODE:
        compile(source, "cell", "exec")
    assert not any(cell.get("outputs") for cell in CELLS)
    assert CODE[0].count("STEPS = 128") == 1


@pytest.mark.notebook
@pytest.mark.timeout(1800)
def test_the_tutorial_runs(tmp_path, data_dir):
    program = "\n".join(CODE).replace("STEPS = 128", f"STEPS = {STEPS}")
    (tmp_path / "tutorial.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": data_dir}
    done = subprocess.run(
        [sys.executable, "tutorial.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("labels that are the same: 100.0%") == 5
    runs = tmp_path / "runs/tutorial"
    for name in ("comparison.png", "demo/curves.png", "demo/eval-val-reliability.png"):
        with Image.open(runs / name) as picture:
            assert len(np.unique(np.array(picture))) > 9, name
