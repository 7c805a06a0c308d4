import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from tempseg_jax.data import tile_preparation, tiles
from tests import miniatures
from tests.data.test_tiles import (
    assert_equal,
    batches,
    load,
    smooth,
    write_images,
)
from tests.support import ROOT


def test_tiles_are_prepared_once_and_again_for_changed_files(tmp_path, capfd):
    root = write_images(tmp_path / "own")
    first = tile_preparation.prepare(load(root, tmp_path / "t"), on_error="raise")
    message = capfd.readouterr().err
    assert "preparing tiles of folder train in" in message
    assert "5 images, about 0.00 GB" in message
    again = tile_preparation.prepare(load(root, tmp_path / "t"), on_error="raise")
    assert "preparing tiles" not in capfd.readouterr().err
    assert again.folder == first.folder
    miniatures.write_folder(root, {"train/3.png": miniatures.png(smooth(9, 20, 30))})
    changed = load(root, tmp_path / "t")
    new = tile_preparation.prepare(changed, on_error="raise")
    assert new.folder != first.folder
    whole = np.s_[0:20, 0:30]
    np.testing.assert_array_equal(new[3]["image"][whole], smooth(9, 20, 30))


def test_an_interrupted_preparation_is_not_mistaken_for_a_finished_one(
    tmp_path, monkeypatch
):
    split = load(write_images(tmp_path / "own"), tmp_path / "tfds")
    write = tiles.write

    def interrupt(arrays, index, **example):
        if index == 3:
            raise KeyboardInterrupt
        write(arrays, index, **example)

    monkeypatch.setattr(tiles, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tile_preparation.prepare(split, on_error="raise")
    assert not list(tmp_path.rglob("zarr.json"))
    monkeypatch.setattr(tiles, "write", write)
    stored = tile_preparation.prepare(split, on_error="raise")
    assert_equal(batches(split, None, 3), batches(split, stored, 3))


def run(code, folder):
    script = (
        "import os, signal\n"
        "from tempseg_jax.data import tile_preparation, tiles\n"
        "from tests.data.test_tile_preparation import load, prepare_in\n"
        f"folder = {str(folder)!r}\n{code}"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )


def prepare_in(folder):
    split = load(f"{folder}/own", f"{folder}/tfds")
    return tile_preparation.prepare(split, on_error="raise")


@pytest.mark.timeout(120)
def test_a_killed_preparation_is_not_mistaken_for_a_finished_one(tmp_path):
    write_images(tmp_path / "own")
    code = (
        "def kill(path, content): os.kill(os.getpid(), signal.SIGKILL)\n"
        "tiles.write_json = kill\n"  # after all tiles are written
        "prepare_in(folder)\n"
    )
    assert run(code, tmp_path).returncode == -signal.SIGKILL
    assert list(tmp_path.rglob("*.incomplete/image/zarr.json"))  # it had started
    assert len(prepare_in(tmp_path)) == 5
    assert not list(tmp_path.rglob("*incomplete*"))


@pytest.mark.timeout(120)
def test_a_full_disk_is_reported_in_one_line_and_nothing_is_kept(tmp_path):
    load(write_images(tmp_path / "own"), tmp_path / "tfds")
    code = (
        "import resource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: prepare_in(folder)\n"
        "except OSError as error: print(error)\n"
    )
    done = run(code, tmp_path)
    (line,) = done.stdout.splitlines()
    assert "train: cannot be written" in line and "data.data_dir" in line
    assert "data.tiles=False" in line
    assert not list(tmp_path.rglob("zarr.json"))


def test_a_disk_that_is_too_small_is_reported_before_most_is_written(
    tmp_path, monkeypatch
):
    split = load(write_images(tmp_path / "own"), tmp_path / "tfds")
    usage = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(tile_preparation.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(tile_preparation, "_SAMPLE", 2)
    written = []
    write = tiles.write

    def record(arrays, index, **example):
        written.append(index)
        write(arrays, index, **example)

    monkeypatch.setattr(tiles, "write", record)
    with pytest.raises(OSError, match=r"needs about .* more bytes, but 1,000 are free"):
        tile_preparation.prepare(split, on_error="raise")
    assert sorted(written) == [0, 2]
    assert not list(tmp_path.rglob("zarr.json"))
