import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tempseg_jax.data import codec, prepared
from tempseg_jax.data.catalog import load_split
from tempseg_jax.data.sources.base import Entry, digest
from tests import miniatures


class Made:
    """A source of `count` tiny images a split, some of them bad."""

    name, where, splits = "made", "thin air", ("train", "val")

    def __init__(self, count=5, *, bad=(), version=0, stop_at=None):
        self.count, self.bad, self.version, self.stop_at = count, bad, version, stop_at
        self.loaded = 0

    def fingerprint(self):
        return digest(self.version)

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


def test_records_come_back_in_order_and_at_random(tmp_path):
    source = Made(200)
    examples = prepared.Examples(prepare(source, tmp_path), expression="val+train")
    assert len(examples) == 400
    for index, split, number in (
        (399, "train", 199),
        (0, "val", 0),
        (250, "train", 50),
    ):
        assert examples[index] == source.load(split, number)


def test_what_is_prepared_is_not_prepared_again(tmp_path):
    first = prepare(Made(), tmp_path)
    again = Made()
    assert prepare(again, tmp_path) == first and again.loaded == 0
    assert prepare(Made(version=1), tmp_path) != first


def test_two_at_once_prepare_once(tmp_path):
    sources = Made(), Made()
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda s: prepare(s, tmp_path), sources))
    assert folders[0] == folders[1]
    assert sources[0].loaded + sources[1].loaded == 10


def test_every_problem_file_is_named_and_nothing_is_kept(tmp_path):
    with pytest.raises(ValueError) as caught:
        prepare(Made(bad=(1, 3)), tmp_path)
    for name in ("train/1.jpg", "train/3.jpg", "val/1.jpg", "val/3.jpg"):
        assert f"{name}: broken" in str(caught.value)
    assert "4 problem files" in str(caught.value)
    assert "data.on_error=skip" in str(caught.value)
    assert not list(tmp_path.rglob("*array_record*"))


def test_of_many_problem_files_ten_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"50 problem files: .*; and 40 more"):
        prepare(Made(80, bad=range(25)), tmp_path)


def test_with_skip_problem_files_are_left_out_and_remembered(tmp_path):
    folder = prepare(Made(bad=(1, 3)), tmp_path, on_error="skip")
    examples = prepared.Examples(folder, expression="train")
    assert [example["id"] for example in examples] == ["train0", "train2", "train4"]
    metadata = prepared.read_metadata(folder)
    assert len(metadata["left_out"]) == 4
    assert metadata["class_names"] == ["a", "b"]
    assert metadata["sizes"]["val"] == [[4, 6, 3]]


def test_a_split_without_any_usable_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no usable image in train"):
        prepare(Made(2, bad=(0, 1)), tmp_path, on_error="skip")


def test_an_interrupted_preparation_leaves_nothing_that_is_believed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare(Made(stop_at=3), tmp_path)
    folder = prepare(Made(), tmp_path)
    assert len(prepared.Examples(folder, expression="train")) == 5


def run(code, folder):
    script = f"import test_data_prepared as t\nfolder = {str(folder)!r}\n{code}"
    return subprocess.run(
        [sys.executable, "-c", script], cwd="tests", capture_output=True, text=True
    )


@pytest.mark.timeout(120)
def test_a_killed_preparation_leaves_nothing_that_is_believed(tmp_path):
    code = (
        "import os, signal\n"
        "class Dies(t.Made):\n"
        "    def load(self, split, i):\n"
        "        if (split, i) == ('val', 70): os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().load(split, i)\n"
        "t.prepare(Dies(100), folder)\n"
    )
    assert run(code, tmp_path).returncode == -signal.SIGKILL
    assert list(tmp_path.rglob("*array_record*"))  # it was under way
    folder = prepare(Made(5), tmp_path)
    assert len(prepared.Examples(folder, expression="val")) == 5
    assert not list(tmp_path.rglob("*incomplete*"))


@pytest.mark.timeout(120)
def test_a_disk_that_fills_up_gives_one_message_and_leaves_nothing(tmp_path):
    code = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: t.prepare(t.Made(400), folder)\n"
        "except OSError as error: print(error)\n"
    )
    done = run(code, tmp_path)
    assert "cannot be written" in done.stdout and "data.data_dir" in done.stdout
    assert not list(tmp_path.rglob("*array_record*"))


def test_a_disk_that_is_too_small_is_noticed_before(tmp_path, monkeypatch):
    usage = prepared.shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(prepared.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"needs about .* bytes, but 1,000 are free"):
        prepare(Made(), tmp_path)


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


def test_a_split_knows_its_classes_and_sizes(tmp_path):
    split = load(write_folder(tmp_path / "own"), tmp_path / "tfds", split="val")
    assert (split.dataset, split.name, len(split.examples)) == ("folder", "val", 3)
    assert split.class_names == ("class 0", "class 1")
    assert split.palette.shape == (2, 3) and split.sizes == {(20, 30): 3}


def test_two_folders_and_a_changed_folder_are_never_mixed_up(tmp_path):
    one = write_folder(tmp_path / "one")
    two = write_folder(tmp_path / "two", count=4)
    assert len(load(one, tmp_path / "tfds").examples) == 3
    assert len(load(two, tmp_path / "tfds").examples) == 4
    changed = miniatures.jpeg(77)
    miniatures.write_folder(one, {"train/0.jpg": changed})
    assert load(one, tmp_path / "tfds").examples[0]["image"] == changed


def test_options_that_change_the_labels_are_never_mixed_up(tmp_path):
    root = write_folder(tmp_path / "own")
    plain, void = (load(root, tmp_path / "t", void_index=v) for v in (None, 1))
    assert len(plain.class_names) == 2 and len(void.class_names) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vok", {}, "data.name='vok'.*cityscapes, folder, scenes, voc"),
        ("scenes", {"void_index": 1}, "void_index: the dataset scenes takes no such"),
        ("scenes", {"on_error": "ignore"}, "on_error='ignore': must be one of"),
        ("scenes", {"split": "test"}, "scenes has no split 'test'; it has train, val"),
    ],
)
def test_a_wrong_name_is_refused_with_the_right_ones(tmp_path, name, options, message):
    arguments = {"split": "train", "manual_dir": None, "data_dir": str(tmp_path)}
    with pytest.raises(ValueError, match=message):
        load_split(name, **arguments | options)
