import argparse
import importlib
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests import miniatures
from tests.support import ROOT, stderr_lines


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
        "--tiles",
    )
    results = {r["mode"]: r for r in map(json.loads, done.stdout.splitlines())}
    assert set(results) == {
        "decode_only",
        "encoded",
        "cached",
        "crops",
        "peer",
    }
    assert results["peer"]["images_per_s"] == 7.5
    assert all(len(result["spread"]) == 2 for result in results.values())
    assert results.pop("peer")["cpu_ms_per_image"] is None
    assert all(result["cpu_ms_per_image"] > 0 for result in results.values())
    assert {result["images"] for result in results.values()} == {str(tmp_path / "own")}


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
    (line,) = stderr_lines(done)
    assert done.returncode == 1 and re.search(f"^error: .*{message}", line), line


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")  # as Python does for a script
    photos = importlib.import_module("benchmark_parts.photos")
    monkeypatch.setattr(photos, "HEIGHT", 150)
    monkeypatch.setattr(photos, "WIDTH", 300)
    return importlib.import_module("benchmark_parts.data"), photos


@pytest.mark.parametrize("with_photos", [False, True])
def test_cityscapes_is_measured_on_images_that_are_made(
    scripts, with_photos, tmp_path, capsys
):
    words = ["--dataset=cityscapes", f"--data_dir={tmp_path}", "--made_images=2"]
    if with_photos:
        (tmp_path / "photo.jpg").write_bytes(miniatures.jpeg())
        words += [f"--photos={tmp_path}"]
    parser = argparse.ArgumentParser()
    scripts[0].add_arguments(parser)
    assert scripts[0].run(parser.parse_args([*words, "--num_workers=0", *SMALL])) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [x["mode"] for x in results] == ["decode_only", "encoded", "crops"]
    made_of = f"{tmp_path}, tiled" if with_photos else "generated scenes, tiled"
    assert {x["images"] for x in results} == {made_of}
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"] * with_photos


def test_made_images_are_tiled_from_the_photographs(scripts, tmp_path):
    for i in range(2):
        data = miniatures.jpeg(i, height=400, width=600)
        miniatures.write_folder(tmp_path / "photos", {f"{i}.jpg": data})
    scripts[1].write(tmp_path / "made", photos=tmp_path / "photos", count=2)
    for i in range(2):
        folder = tmp_path / "made/leftImg8bit/train/made"
        image = cv2.imread(str(folder / f"made_{i:06}_leftImg8bit.png"))
        photo = cv2.imread(str(tmp_path / f"photos/{i}.jpg"))
        np.testing.assert_array_equal(image, photo[:150, :300])


def test_photographs_that_would_not_be_used_are_refused(scripts, capsys, tmp_path):
    parser = argparse.ArgumentParser()
    scripts[0].add_arguments(parser)
    with pytest.raises(SystemExit, match="--photos=x needs --dataset=cityscapes"):
        scripts[0].run(parser.parse_args(["--photos=x"]))
    words = ["--dataset=cityscapes", f"--photos={tmp_path}", f"--data_dir={tmp_path}"]
    with pytest.raises(SystemExit, match="contains no .jpg, .jpeg or .png file"):
        scripts[0].run(parser.parse_args(words))


def write_tiny(folder):
    mask = miniatures.png(miniatures.mask(values=(0, 1)))
    for i in range(4):
        files = {f"train/{i}.jpg": miniatures.jpeg(i), f"trainannot/{i}.png": mask}
        miniatures.write_folder(folder / "own", files)
    return folder / "own"
