import re
import subprocess
import sys

import pytest

from tests import miniatures
from tests.support import ROOT


def run(*arguments):
    command = [sys.executable, "scripts/prepare.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.timeout(120)
def test_every_problem_file_is_printed_and_the_exit_status_is_one(tmp_path):
    mask = miniatures.png(miniatures.mask(values=(0, 1)))
    for i in range(13):
        for split in ("train", "val"):
            image = miniatures.jpeg()[: -200 if i < 12 else None]
            files = {f"{split}/{i}.jpg": image, f"{split}annot/{i}.png": mask}
            miniatures.write_folder(tmp_path / "own", files)
    common = ["--dataset=folder", f"--manual_dir={tmp_path / 'own'}"]
    common += [f"--data_dir={tmp_path / 'tfds'}", "--option=void_index=1"]
    done = run(*common)
    assert done.returncode == 1 and done.stdout.count("truncated") == 24
    assert "Traceback" not in done.stderr and "24 problem files" in done.stderr
    picture = tmp_path / "grid.png"
    done = run(*common, "--on_error=skip", "--tiles", f"--preview={picture}")
    assert "folder val: 1 images of 1 sizes" in done.stdout
    assert "skipped in all splits: 24" in done.stdout
    assert "tiles of train: 0.00 GB in " in done.stdout
    assert picture.is_file()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--option=a=1", "--option is ignored .* set --config.data.options.NAME=…"),
        ("--allow_missing", "set --config.data.options.allow_missing=…"),
        ("--config.data.manul_dir=x", "field 'manul_dir'; did you mean 'manual_dir'"),
        ("--config=configs/vok.py", "--config: .*No such file.*: 'configs/vok.py'"),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused_in_one_line(argument, message):
    done = run("--config=configs/demo.py", argument)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and re.search(f"^error: .*{message}", line), line
