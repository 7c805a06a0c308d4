import re
import subprocess
import sys

import pytest
from PIL import Image

from tests import miniatures
from tests.support import ROOT, stderr_lines


def run(*arguments):
    command = [sys.executable, "scripts/prepare.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def write_pairs(folder, values):
    """Write train and val, each with one image and mask for each tuple of values."""
    for split in ("train", "val"):
        for i, of_mask in enumerate(values):
            mask = miniatures.png(miniatures.mask(values=of_mask))
            files = {
                f"{split}/{i}.jpg": miniatures.jpeg(),
                f"{split}annot/{i}.png": mask,
            }
            miniatures.write_folder(folder, files)


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
    assert "folder val: 1 image of 1 size" in done.stdout
    assert "skipped in folder train: 12" in done.stdout
    assert "skipped in folder val: 12" in done.stdout
    assert "tiles of folder train: 0.00 GB in " in done.stdout
    assert picture.is_file()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--option=a=1", "--option is ignored .* set --config.data.options.NAME=…"),
        ("--allow_missing", "set --config.data.options.allow_missing=…"),
        ("--config.data.manul_dir=x", "field 'manul_dir'; did you mean 'manual_dir'"),
        ("--config.data.options.void_index=1", "config.data.options.void_index = …"),
        ("--config=configs/vok.py", "--config=configs/vok.py: there is no such file"),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused_in_one_line(argument, message):
    done = run("--config=configs/demo.py", argument)
    (line,) = stderr_lines(done)
    assert done.returncode == 1 and re.search(f"^error: .*{message}", line), line


def test_a_refusal_names_the_flags_and_leaves_nothing_and_a_config_is_written(tmp_path):
    write_pairs(tmp_path / "own", [(0, 255)] * 2)
    data_dir = tmp_path / "tfds"
    common = ["--dataset=folder", f"--manual_dir={tmp_path / 'own'}"]
    common += [f"--data_dir={data_dir}"]
    done = run(*common)
    assert done.returncode == 1 and "data.options" not in done.stderr
    assert """--option='mask_values={"0": 0, "255": 1}'""" in done.stderr
    assert not list(data_dir.rglob("*"))
    path = tmp_path / "mine.py"
    grid = tmp_path / "grid.png"
    flags = [f"--write_config={path}", "--base=demo", f"--preview={grid}"]
    done = run(*common, *flags)
    assert not done.returncode, done.stderr
    assert 4 * 32 < Image.open(grid).width < 4 * 32 + 40  # the config's crops, of 32
    assert "2 classes; the values are not the class indices" in done.stdout
    assert "folder val: 2 images of 1 size" in done.stdout
    done = run(*common, f"--write_config={path}")
    assert done.returncode == 1 and "the file exists; name another" in done.stderr


def test_a_config_is_written_after_preparing_and_with_the_flags_given(tmp_path):
    write_pairs(tmp_path / "own", [(0, 255)] * 3)
    broken = tmp_path / "own" / "train" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    path = tmp_path / "mine.py"
    common = ["--dataset=folder", f"--manual_dir={tmp_path / 'own'}"]
    common += [f"--data_dir={tmp_path / 'tfds'}", f"--write_config={path}"]
    done = run(*common)
    assert done.returncode == 1 and "1.jpg" in done.stderr
    assert not path.exists()
    run(*common, "--on_error=skip")
    source = path.read_text()
    assert "    config.data.on_error = 'skip'\n" in source
    assert f"    config.data.data_dir = '{tmp_path / 'tfds'}'\n" in source
    assert "data.tiles" not in source
    assert "folder train: 2 images" in run(f"--config={path}").stdout


def test_images_without_labels_are_prepared_and_reported(tmp_path):
    for i in range(3):
        miniatures.write_folder(tmp_path / "more", {f"{i}.jpg": miniatures.jpeg(i)})
    common = ["--config=configs/semi_demo.py", "--config.data.tiles=True"]
    common += [f"--config.data.data_dir={tmp_path / 'tfds'}"]
    done = run(*common, f"--config.data.unlabeled_dir={tmp_path / 'more'}")
    assert not done.returncode, done.stderr
    assert "unlabeled train: 3 images of 1 size: 30x20 (3)" in done.stdout
    assert "tiles of unlabeled train: 0.00 GB in" in done.stdout
    done = run(*common, f"--config.data.unlabeled_dir={tmp_path / 'none'}")
    assert done.returncode == 1 and "data.unlabeled_dir: " in done.stderr
    assert "none does not exist" in done.stderr


def test_class_weights_are_those_of_the_labels_that_training_uses(tmp_path):
    values = [(0,)] * 8
    values[3] = (0, 1)  # the only image with class 1
    write_pairs(tmp_path / "own", values)
    config = tmp_path / "mine.py"
    data = ["--dataset=folder", f"--manual_dir={tmp_path / 'own'}"]
    done = run(*data, f"--data_dir={tmp_path / 'tfds'}", f"--write_config={config}")
    assert not done.returncode, done.stderr
    weights = set()
    for seed in (3, 4):
        done = run(
            f"--config={config}",
            f"--config.data.data_dir={tmp_path / 'tfds'}",
            "--config.data.labeled_fraction=0.5",
            f"--config.data.labeled_seed={seed}",
            "--config.objective.class_weights=inverse",
        )
        assert not done.returncode, done.stderr
        assert "class weights of 4 training images, inverse:" in done.stdout
        weights.add(done.stdout.split("inverse:")[1])
    assert len(weights) == 2
