import json
import re
import subprocess
import sys

import numpy as np
import pytest

from tempseg_jax.data import codec, inspection
from tempseg_jax.data.catalog import Split
from tests import miniatures
from tests.support import ROOT


@pytest.fixture
def split():
    label = np.full((20, 30), 255, np.uint8)
    label[:10] = 0
    label[:5, :6] = 1
    record = {
        "id": "good",
        "image": miniatures.jpeg(),
        "label": codec.encode_label(label),
    }
    broken = record | {"id": "bad", "image": b""}
    palette = np.zeros((2, 3), np.uint8)
    return Split("tiny", "train", [record, broken, record], ("sky", "sea"), palette)


def test_pixels_images_sizes_and_problems_are_counted(split):
    found = inspection.inspect(split)
    assert list(found.pixels[[0, 1, 255]]) == [540, 60, 600]
    assert list(found.images[[0, 1, 255]]) == [2, 2, 2]
    assert found.sizes == {(20, 30): 2}
    (problem,) = found.problems
    assert "bad" in problem and "empty file" in problem
    text = "\n".join(found.lines())
    assert "2 images of 1 sizes: 30x20 (2)" in text and "50.00%" in text


def test_a_grid_shows_each_image_beside_its_mask():
    batch = {
        "image": np.full((3, 8, 8, 3), 9, np.uint8),
        "label": np.ones((3, 8, 8), np.uint8),
    }
    palette = np.array([(0, 0, 0), (1, 2, 3)], np.uint8)
    picture = inspection.grid(batch, palette=palette, columns=2)
    assert picture.shape == (24, 40, 3)
    assert (picture[:8, :8] == 9).all() and (picture[:8, 8:16] == (1, 2, 3)).all()
    assert (picture[12:, 20:] == 255).all()


def run(script, *arguments):
    command = [sys.executable, f"scripts/{script}.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.timeout(120)
def test_the_script_prints_every_problem_file_and_fails(tmp_path):
    mask = miniatures.png(miniatures.mask(values=(0, 1)))
    for i in range(13):
        for split in ("train", "val"):
            image = miniatures.jpeg()[: -200 if i < 12 else None]
            files = {f"{split}/{i}.jpg": image, f"{split}annot/{i}.png": mask}
            miniatures.write_folder(tmp_path / "own", files)
    common = ["--dataset=folder", f"--manual_dir={tmp_path / 'own'}"]
    common += [f"--data_dir={tmp_path / 'tfds'}", "--option=void_index=1"]
    done = run("prepare", *common)
    assert done.returncode == 1 and done.stdout.count("truncated") == 24
    assert "Traceback" not in done.stderr and "24 problem files" in done.stderr
    picture = tmp_path / "grid.png"
    done = run("prepare", *common, "--on_error=skip", f"--preview={picture}")
    assert "folder val: 1 images of 1 sizes" in done.stdout
    assert "left out of all splits: 24" in done.stdout
    assert picture.is_file()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--option=a=1", "--option: not read .* --config.data.options.NAME=… instead"),
        ("--allow_missing", "give --config.data.options.allow_missing=… instead"),
        ("--config.data.manul_dir=x", "field 'manul_dir'; did you mean 'manual_dir'"),
        ("--config=configs/vok.py", "--config: .*No such file.*: 'configs/vok.py'"),
    ],
)
def test_what_prepare_would_not_read_is_one_line(argument, message):
    done = run("prepare", "--config=configs/demo.py", argument)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and re.search(f"^error: .*{message}", line), line


@pytest.mark.timeout(120)
def test_the_benchmark_prints_one_json_object_a_mode(tmp_path):
    peer = tmp_path / "peer.py"
    peer.write_text("print('noise'); print('{\"images_per_s\": 7.5}')")
    done = run(
        "benchmark",
        "data",
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
def test_the_benchmark_measures_scenes_in_the_main_thread(data_dir):
    scenes = ("--dataset=scenes", f"--data_dir={data_dir}", "--num_workers=0")
    done = run("benchmark", "data", *scenes, *SMALL)
    rates = [json.loads(line)["images_per_s"] for line in done.stdout.splitlines()]
    assert len(rates) == 3 and min(rates) > 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--split=valid", "'valid'.*train, val"),
        ("--batch_size=0", "--batch_size=0: give 1 or more"),
        ("--peer=echo fast", "--peer=echo fast: its last line is no JSON object with"),
    ],
)
def test_what_the_benchmark_cannot_do_is_one_line(data_dir, argument, message):
    scenes = ("--dataset=scenes", f"--data_dir={data_dir}")
    done = run("benchmark", "data", *scenes, *SMALL, argument)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and re.search(f"^error: .*{message}", line), line


def write_tiny(folder):
    mask = miniatures.png(miniatures.mask(values=(0, 1)))
    for i in range(4):
        files = {f"train/{i}.jpg": miniatures.jpeg(i), f"trainannot/{i}.png": mask}
        miniatures.write_folder(folder / "own", files)
    return folder / "own"
