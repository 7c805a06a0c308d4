import json
import re
import subprocess
import sys

import pytest

from tests import miniatures
from tests.support import ROOT


def run(*arguments):
    command = [sys.executable, "scripts/benchmark.py", "data", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.timeout(120)
def test_one_json_object_is_printed_per_mode(tmp_path):
    peer = tmp_path / "peer.py"
    peer.write_text("print('noise'); print('{\"images_per_s\": 7.5}')")
    done = run(
        "--dataset=folder",
        f"--manual_dir={write_tiny(tmp_path)}",
        f"--data_dir={tmp_path / 'tfds'}",
        "--split=train",
        "--rounds=2",
        "--images=8",
        "--batch_size=2",
        "--crop_size=16",
        f"--peer={sys.executable} {peer}",
    )
    results = {r["mode"]: r for r in map(json.loads, done.stdout.splitlines())}
    assert set(results) == {"decode_only", "encoded", "cached", "peer"}
    assert results["peer"]["images_per_s"] == 7.5
    assert all(len(result["spread"]) == 2 for result in results.values())


SMALL = ("--rounds=1", "--images=64", "--batch_size=64", "--crop_size=16")


@pytest.mark.timeout(120)
def test_scenes_are_measured_in_the_main_thread(data_dir):
    scenes = ("--dataset=scenes", f"--data_dir={data_dir}", "--num_workers=0")
    done = run(*scenes, *SMALL)
    rates = [json.loads(line)["images_per_s"] for line in done.stdout.splitlines()]
    assert len(rates) == 3 and min(rates) > 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--split=valid", "'valid'.*train, val"),
        ("--batch_size=0", "--batch_size=0: give 1 or more"),
        (
            "--peer=echo fast",
            "--peer=echo fast: the last line that it printed is not a JSON object",
        ),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line(data_dir, argument, message):
    scenes = ("--dataset=scenes", f"--data_dir={data_dir}")
    done = run(*scenes, *SMALL, argument)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and re.search(f"^error: .*{message}", line), line


def write_tiny(folder):
    mask = miniatures.png(miniatures.mask(values=(0, 1)))
    for i in range(4):
        files = {f"train/{i}.jpg": miniatures.jpeg(i), f"trainannot/{i}.png": mask}
        miniatures.write_folder(folder / "own", files)
    return folder / "own"
