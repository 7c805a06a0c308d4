"""Damaged checkpoints are found, named in one line, and never believed."""

import contextlib
import errno
import json
import random
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.workdir import checkpoint_folder, digests
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.checkpoint_folder import DamagedCheckpoint
from tests.support import ROOT
from tests.workdir.test_checkpoint import MODEL, assert_equal, make_state


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with the checkpoints of steps 3 and 6; step 3 is the best."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    for step, miou in ((3, 0.6), (6, 0.5)):
        checkpoints.save(make_state(step), MODEL)
        checkpoints.add_scores(step, {"miou": miou})
    checkpoints.close()
    return folder


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def restore(workdir, step):
    checkpoints = Checkpoints(workdir)
    try:
        state = checkpoints.restore(make_state(0), MODEL, step=step)
        like = make_state(0).segmenter.variables
        segmenter = checkpoints.restore_segmenter(like, MODEL, step=step)
    finally:
        checkpoints.close()
    assert_equal(segmenter, state.segmenter.variables)
    return state


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path, random_):
    data = bytearray(path.read_bytes())
    data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(data)


def truncate(path, random_):
    data = path.read_bytes()
    path.write_bytes(data[: random_.randrange(len(data))])


def delete(path, random_):
    path.unlink()


def empty(path, random_):
    path.write_bytes(b"")


def test_an_error_of_the_file_system_is_not_damage(workdir, monkeypatch):
    checkpoints = Checkpoints(workdir)

    def stale(*args, **kwargs):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(checkpoints._reader, "restore", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        checkpoints.model(6)
    checkpoints.close()


@pytest.mark.parametrize("damage", [flip, truncate, delete, empty])
def test_a_damaged_file_is_found_or_does_not_matter(workdir, saved, damage):
    random_ = random.Random(0)
    found = 0
    folder = workdir / "checkpoints" / "6"
    for path in files_of(folder):
        whole = path.read_bytes()
        damage(path, random_)
        try:
            assert_equal(restore(workdir, 6), make_state(6))
        except DamagedCheckpoint as error:
            assert f"{folder}: the checkpoint is damaged (" in str(error)
            assert "(available: 3)" in str(error) and "\n" not in str(error)
            found += 1
        path.write_bytes(whole)
    assert found > 5  # other files are of no use to a restore


def test_a_bit_that_flips_in_an_array_is_found_by_its_digest(saved, monkeypatch):
    # Orbax restores some of them without an error; here it restores all of them.
    checkpoints = Checkpoints(saved)
    restored = checkpoints._reader.restore

    def flipped(*args, **kwargs):
        items = restored(*args, **kwargs)
        if "segmenter" in items.keys():
            items["segmenter"]["params"]["conv"]["kernel"] = kernel(items).at[0].add(1)
        return items

    def kernel(items):
        return items["segmenter"]["params"]["conv"]["kernel"]

    monkeypatch.setattr(checkpoints._reader, "restore", flipped)
    message = r"damaged \(segmenter\['params'\]\['conv'\]\['kernel'\] is not what was"
    with pytest.raises(DamagedCheckpoint, match=message):
        checkpoints.restore(make_state(0), MODEL, step=6)
    like = make_state(0).segmenter.variables
    with pytest.raises(DamagedCheckpoint, match=message):
        checkpoints.restore_segmenter(like, MODEL, step=6)
    checkpoints.close()


@pytest.mark.parametrize("item", ["segmenter", "discriminator", "training", "model"])
def test_a_missing_item_is_damage(workdir, item):
    shutil.rmtree(workdir / "checkpoints" / "6" / item)
    with pytest.raises(DamagedCheckpoint, match="6: the checkpoint is damaged"):
        restore_all = Checkpoints(workdir)
        try:
            restore_all.restore(make_state(0), MODEL, step=6)
        finally:
            restore_all.close()


def test_an_empty_folder_is_a_damaged_checkpoint_and_not_none(workdir):
    (workdir / "checkpoints" / "9").mkdir()
    assert Checkpoints(workdir).resolve("latest") == 9
    with pytest.raises(DamagedCheckpoint, match="9: the checkpoint is damaged"):
        restore(workdir, 9)


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(workdir):
    (workdir / "checkpoints" / "6").rename(workdir / "checkpoints" / "8")
    with pytest.raises(DamagedCheckpoint, match="it holds the state after step 6"):
        restore(workdir, 8)


def test_values_that_are_not_finite_are_damage_without_digests_too(workdir, tmp_path):
    state = make_state(7)
    params = jax.tree.map(lambda x: x * np.nan, state.segmenter.params)
    state = state.replace(segmenter=state.segmenter.replace(params=params))
    checkpoints = Checkpoints(tmp_path / "other")
    checkpoints.save(state, MODEL)
    checkpoints.close()
    shutil.rmtree(tmp_path / "other" / "checkpoints" / "7" / "digests")
    with pytest.raises(DamagedCheckpoint, match=r"\['kernel'\] is not finite"):
        restore(tmp_path / "other", 7)


@pytest.mark.parametrize("content", ["", '{"scores": {"mi', '{"scores": {}}', "[]"])
def test_damaged_scores_are_named_and_their_checkpoint_is_kept(workdir, content):
    path = workdir / "checkpoints" / "3" / "scores.json"
    path.write_text(content)
    checkpoints = Checkpoints(workdir)
    with pytest.raises(DamagedCheckpoint, match="3: .*scores.json cannot be read"):
        checkpoints.resolve("best")
    assert checkpoints.resolve("latest") == 6
    for step in (7, 8):
        checkpoints.save(make_state(step), MODEL)
    checkpoints.close()
    assert checkpoints.steps() == [3, 6, 7, 8]  # 6 has the best known score


def test_a_changed_score_is_found(workdir):
    path = workdir / "checkpoints" / "6" / "scores.json"
    path.write_text(path.read_text().replace("0.5", "0.7"))
    with pytest.raises(DamagedCheckpoint, match="they are not what was saved"):
        Checkpoints(workdir).resolve("best")


def test_a_checkpoint_that_is_deleted_while_it_is_read_is_resolved_again(workdir):
    checkpoints = Checkpoints(workdir)
    like, seen = make_state(0).segmenter.variables, []

    def read(step):
        seen.append(step)
        if len(seen) == 1:
            checkpoint_folder.delete(workdir / "checkpoints" / str(step))
        return checkpoints.restore_segmenter(like, MODEL, step=step)

    segmenter = checkpoints.read("best", read)
    assert seen == [3, 6]
    assert_equal(segmenter, make_state(6).segmenter.variables)
    (workdir / "checkpoints" / "6" / "segmenter" / "_METADATA").write_text("{")
    with pytest.raises(DamagedCheckpoint, match="6: the checkpoint is damaged"):
        checkpoints.read("best", read)  # it is there, so it is not tried again
    checkpoints.close()


def test_a_digest_depends_on_every_bit_the_type_and_the_shape():
    array = np.arange(6, dtype=np.float32)
    arrays = [array, array.reshape(2, 3), array.astype(np.int32), array.view(np.int32)]
    for index in range(24):
        flipped = array.copy()
        flipped.view(np.uint8)[index] ^= 1 << index % 8
        arrays.append(flipped)
    values = [digests.of_arrays({"x": jnp.asarray(x)})["['x']"] for x in arrays]
    assert len(set(values)) == len(values)
    assert digests.of_arrays({"x": jnp.asarray(array)})["['x']"] == values[0]


FULL_DISK = """
import resource, sys, time
import jax.numpy as jnp, numpy as np
from tempseg_jax.cli import command
from tempseg_jax.workdir.checkpoint import Checkpoints
from tests.support import ROOT
from tests.workdir.test_checkpoint import MODEL, make_state

def save(step, channels):
    state = make_state(step, channels=channels)
    kernel = np.random.default_rng(0).normal(size=(1, 1, 3, channels))
    params = {"conv": {"kernel": jnp.asarray(kernel, jnp.float32)}}
    state = state.replace(segmenter=state.segmenter.replace(params=params))
    checkpoints.save(state, MODEL)

command.prepare()
with command.one_line_errors(debug=False):
    checkpoints = Checkpoints(sys.argv[1])
    save(1, channels=4)
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    save(2, channels=40_000)
    for _ in range(600):
        time.sleep(0.1)
        checkpoints.check()  # as at each line of the log
"""


def test_a_save_onto_a_full_disk_is_one_line_and_the_last_checkpoint_is_good(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/checkpoints/2: the checkpoint could not")
    assert "the last good one is step 1; free some space" in line
    assert Checkpoints(tmp_path).steps() == [1]
    assert int(restore(tmp_path, 1).step) == 1


def test_scores_that_cannot_be_written_leave_a_good_checkpoint(workdir, monkeypatch):
    def full(folder, scores):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_folder, "write_scores", full)
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        with pytest.raises(OSError, match="6: its validation scores .*free some space"):
            checkpoints.add_scores(6, {"miou": 0.5})
    assert_equal(restore(workdir, 6), make_state(6))


def test_a_failed_save_is_one_line_and_the_last_checkpoint_is_good(workdir):
    checkpoints = Checkpoints(workdir)
    (workdir / "checkpoints" / "7").write_text("a file where the folder shall be")
    with pytest.raises(OSError, match="7: the checkpoint could not be saved .*step 6"):
        checkpoints.save(make_state(7), MODEL)
        checkpoints.wait()
    checkpoints.close()
    assert_equal(restore(workdir, 6), make_state(6))
    assert json.loads((workdir / "checkpoints/6/scores.json").read_text())
