import errno
import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tempseg_jax.data import catalog, codec, prepared
from tempseg_jax.data.catalog import load_split
from tempseg_jax.data.sources.base import Entry, digest
from tests import miniatures
from tests.support import ROOT, replace_once


class FakeSource:
    """A source of `count` tiny images per split; those in `bad` cannot be used."""

    name, where, splits = "fake", "memory", ("train", "val")

    def __init__(self, count=5, *, bad=(), version=0, stop_at=None):
        self.count, self.bad, self.version, self.stop_at = count, bad, version, stop_at
        self.loaded = 0

    def fingerprint(self):
        return digest(self.version)

    def notes(self):
        return ()

    def split_expression(self, split):
        return split

    def entries(self, split):
        return [
            Entry(id=f"{split}{i}", nbytes=1000, load=lambda i=i: self.load(split, i))
            for i in range(self.count)
        ]

    def classes(self):
        return ("a", "b"), np.array([(1, 2, 3), (4, 5, 6)], np.uint8)

    def load(self, split, i):
        if i == self.stop_at:
            raise KeyboardInterrupt
        if i in self.bad:
            raise codec.BadFile(f"{split}/{i}.jpg: broken")
        self.loaded += 1
        label = np.full((4 + i % 2, 6), i % 2, np.uint8)
        return {
            "id": f"{split}{i}",
            "image": miniatures.jpeg(i, height=4 + i % 2, width=6),
            "label": codec.encode_label(label),
        }


def prepare(source, folder, *, on_error="raise"):
    return prepared.prepare(source, data_dir=str(folder), on_error=on_error)


def test_records_are_read_by_index_in_their_order(tmp_path):
    source = FakeSource(200)
    examples = prepared.Examples(prepare(source, tmp_path), expression="val+train")
    assert len(examples) == 400
    for index, split, number in (
        (399, "train", 199),
        (0, "val", 0),
        (250, "train", 50),
    ):
        assert examples[index] == source.load(split, number)


def test_a_prepared_source_is_not_prepared_again(tmp_path):
    first = prepare(FakeSource(), tmp_path)
    again = FakeSource()
    assert prepare(again, tmp_path) == first and again.loaded == 0
    assert prepare(FakeSource(version=1), tmp_path) != first


def test_two_processes_at_once_prepare_once(tmp_path):
    sources = FakeSource(), FakeSource()
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda s: prepare(s, tmp_path), sources))
    assert folders[0] == folders[1]
    assert sources[0].loaded + sources[1].loaded == 10


def test_every_problem_file_is_named_and_nothing_is_kept(tmp_path):
    with pytest.raises(ValueError) as caught:
        prepare(FakeSource(bad=(1, 3)), tmp_path)
    for name in ("train/1.jpg", "train/3.jpg", "val/1.jpg", "val/3.jpg"):
        assert f"{name}: broken" in str(caught.value)
    assert "4 problem files" in str(caught.value)
    assert "data.on_error=skip" in str(caught.value)
    assert not list(tmp_path.rglob("*array_record*"))


def test_ten_of_many_problem_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"50 problem files: .*; and 40 more"):
        prepare(FakeSource(80, bad=range(25)), tmp_path)


def test_with_skip_problem_files_are_skipped_and_recorded(tmp_path):
    folder = prepare(FakeSource(bad=(1, 3)), tmp_path, on_error="skip")
    examples = prepared.Examples(folder, expression="train")
    assert [example["id"] for example in examples] == ["train0", "train2", "train4"]
    metadata = prepared.read_metadata(folder)
    broken = [f"{i}.jpg: broken" for i in (1, 3)]
    assert metadata["left_out"] == {
        split: [f"{split}/{name}" for name in broken] for split in ("train", "val")
    }
    assert metadata["class_names"] == ["a", "b"]
    assert metadata["sizes"]["val"] == [[4, 6, 3]]


def test_with_skip_what_was_prepared_without_problem_files_is_used(tmp_path):
    folder = prepare(FakeSource(), tmp_path)
    again = FakeSource()
    assert prepare(again, tmp_path, on_error="skip") == folder and not again.loaded


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("open() failed: Too many open files; opening x"),  # array_record
        PermissionError(errno.EACCES, "Permission denied"),
    ],
)
def test_an_error_of_the_machine_is_not_damage(tmp_path, monkeypatch, error):
    folder = prepare(FakeSource(), tmp_path)
    examples = prepared.Examples(folder, expression="train")

    def fail(*args):
        raise error

    monkeypatch.setattr(prepared.tfds, "builder_from_directory", fail)
    with pytest.raises(OSError, match=r"Too many open files|Permission") as caught:
        prepared.read_metadata(folder)
    assert "delete" not in str(caught.value)
    monkeypatch.setattr(examples, "_records", type("R", (), {"__getitem__": fail})())
    with pytest.raises(OSError, match=r"Too many open files|Permission") as caught:
        _ = examples[0]
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("old, new", [('"a"', '"q"'), ("sha256", "sha257")])
def test_changed_metadata_is_refused(tmp_path, old, new):
    folder = prepare(FakeSource(), tmp_path)
    path = folder / "metadata.json"
    replace_once(path, old, new)
    with pytest.raises(OSError, match=r"is damaged .*; delete this folder"):
        prepared.read_metadata(folder)


def test_metadata_of_older_datasets_has_no_digest(tmp_path):
    folder = prepare(FakeSource(), tmp_path)
    expected = prepared.read_metadata(folder)
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["sha256"]
    path.write_text(json.dumps(metadata))
    assert prepared.read_metadata(folder) == expected


def test_a_split_without_any_usable_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the split train has no usable image"):
        prepare(FakeSource(2, bad=(0, 1)), tmp_path, on_error="skip")


def test_an_interrupted_preparation_is_not_mistaken_for_a_finished_one(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare(FakeSource(stop_at=3), tmp_path)
    folder = prepare(FakeSource(), tmp_path)
    assert len(prepared.Examples(folder, expression="train")) == 5


def run(code, folder):
    script = (
        "from tests.data.test_prepared import FakeSource, prepare\n"
        f"folder = {str(folder)!r}\n{code}"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.timeout(120)
def test_a_killed_preparation_is_not_mistaken_for_a_finished_one(tmp_path):
    code = (
        "import os, signal\n"
        "class Dies(FakeSource):\n"
        "    def load(self, split, i):\n"
        "        if (split, i) == ('val', 70): os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().load(split, i)\n"
        "prepare(Dies(100), folder)\n"
    )
    assert run(code, tmp_path).returncode == -signal.SIGKILL
    assert list(tmp_path.rglob("*array_record*"))  # it had started
    folder = prepare(FakeSource(5), tmp_path)
    assert len(prepared.Examples(folder, expression="val")) == 5
    assert not list(tmp_path.rglob("*incomplete*"))


@pytest.mark.timeout(120)
def test_a_full_disk_is_reported_and_nothing_is_kept(tmp_path):
    code = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: prepare(FakeSource(400), folder)\n"
        "except OSError as error: print(error)\n"
    )
    done = run(code, tmp_path)
    assert "cannot be written" in done.stdout and "data.data_dir" in done.stdout
    assert not list(tmp_path.rglob("*array_record*"))


def test_a_disk_that_is_too_small_is_reported_before_writing(tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(prepared.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"needs about .* bytes, but 1,000 are free"):
        prepare(FakeSource(), tmp_path)


def write_folder(root, count=3):
    label = miniatures.png(miniatures.mask(values=(0, 1)))
    for i in range(count):
        for split in ("train", "val"):
            files = {
                f"{split}/{i}.jpg": miniatures.jpeg(i),
                f"{split}annot/{i}.png": label,
            }
            miniatures.write_folder(root, files)
    return str(root)


def load(root, data_dir, *, split="train", **options):
    return load_split(
        "folder", split=split, manual_dir=root, data_dir=str(data_dir), **options
    )


def test_a_split_has_class_names_a_palette_and_sizes(tmp_path):
    split = load(write_folder(tmp_path / "own"), tmp_path / "tfds", split="val")
    assert (split.dataset, split.name, len(split.examples)) == ("folder", "val", 3)
    assert split.class_names == ("class 0", "class 1")
    assert split.palette.shape == (2, 3) and split.sizes == {(20, 30): 3}


def test_a_split_knows_what_is_left_out_of_it(tmp_path):
    root = write_folder(tmp_path / "own")
    miniatures.write_folder(root, {"val/1.jpg": b"", "train/other.txt": b"x"})
    train, val = (
        load(root, tmp_path / "tfds", split=split, on_error="skip")
        for split in ("train", "val")
    )
    assert train.left_out == () and train.gaps() == train.notes
    (note,) = train.notes
    assert "1 files are left out" in note
    (message,) = val.left_out
    assert "val/1.jpg: the file is empty" in message
    assert val.gaps() == (
        "folder val: images left out as problem files"
        f" (data.on_error=skip): 1, such as {message}",
        note,
    )


def test_older_datasets_have_one_list_of_what_is_left_out():
    messages = ["train/1.jpg: broken", "val/1.jpg: broken"]
    assert catalog._left_out(messages, ["val"]) == tuple(messages)


def test_other_or_changed_folders_are_prepared_separately(tmp_path):
    one = write_folder(tmp_path / "one")
    two = write_folder(tmp_path / "two", count=4)
    assert len(load(one, tmp_path / "tfds").examples) == 3
    assert len(load(two, tmp_path / "tfds").examples) == 4
    changed = miniatures.jpeg(77)
    miniatures.write_folder(one, {"train/0.jpg": changed})
    assert load(one, tmp_path / "tfds").examples[0]["image"] == changed


def test_options_that_change_labels_are_prepared_separately(tmp_path):
    root = write_folder(tmp_path / "own")
    plain, void = (load(root, tmp_path / "t", void_index=v) for v in (None, 1))
    assert len(plain.class_names) == 2 and len(void.class_names) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vok", {}, "data.name='vok'.*cityscapes, folder, scenes, voc"),
        (
            "scenes",
            {"void_index": 1},
            "options.void_index is not an option of the dataset scenes",
        ),
        (
            "scenes",
            {"on_error": "ignore"},
            "on_error='ignore' must be one of raise, skip",
        ),
        (
            "scenes",
            {"split": "trainval"},
            "scenes has no split 'trainval'; choose one of train, val, test",
        ),
    ],
)
def test_the_message_on_a_wrong_name_lists_the_right_ones(
    tmp_path, name, options, message
):
    arguments = {"split": "train", "manual_dir": None, "data_dir": str(tmp_path)}
    with pytest.raises(ValueError, match=message):
        load_split(name, **arguments | options)
