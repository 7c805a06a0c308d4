import errno
import os
import stat

import pytest

from tempseg_jax.io import atomic


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "scores.json"
    with atomic.replacing(path) as partial:
        partial.write_text("half")
        assert not path.exists() and partial.suffix == ".json"
    assert path.read_text() == "half"
    assert [p.name for p in path.parent.iterdir()] == ["scores.json"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_after_an_error_the_old_file_is_unchanged_and_nothing_else_is_left(
    tmp_path, kind
):
    path = tmp_path / "result"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as partial:
        if kind == "folder":
            partial.mkdir()
            (partial / "part").write_text("half")
        else:
            partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    with atomic.replacing(tmp_path / "export") as partial:
        partial.mkdir()
        (partial / "use.py").write_text("pass")
    assert (tmp_path / "export" / "use.py").read_text() == "pass"


def test_files_are_added_to_a_folder_together_or_not_at_all(tmp_path):
    folder = tmp_path / "new" / "model"
    with atomic.adding_files(folder) as partial:
        (partial / "use.py").write_text("1")
        assert not (folder / "use.py").exists()
    with atomic.adding_files(folder) as partial:
        (partial / "model.json").write_text("2")
        (partial / "use.py").write_text("2")
    with pytest.raises(KeyboardInterrupt), atomic.adding_files(folder) as partial:
        (partial / "use.py").write_text("3")
        raise KeyboardInterrupt
    contents = {path.name: path.read_text() for path in folder.iterdir()}
    assert contents == {"model.json": "2", "use.py": "2"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_the_temporary_folder_is_within_the_target_on_the_same_file_system(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    with atomic.adding_files(link) as partial:
        assert partial.resolve().parent == target
        (partial / "use.py").write_text("1")
    assert [path.name for path in target.iterdir()] == ["use.py"]


def test_files_can_be_added_after_an_attempt_of_the_same_process_id(tmp_path):
    folder = tmp_path / "model"
    with atomic.adding_files(folder) as first, atomic.adding_files(folder) as second:
        (first / "use.py").write_text("1")
        (second / "model.json").write_text("2")
    assert {path.name for path in folder.iterdir()} == {"use.py", "model.json"}


def test_a_failure_removes_the_folder_only_if_it_was_new(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    for folder in (old, new):
        with pytest.raises(ValueError), atomic.adding_files(folder) as partial:
            (partial / "use.py").write_text("half")
            raise ValueError
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert list(old.iterdir()) == []


def test_only_files_of_the_same_kind_of_folder_are_replaced(tmp_path):
    def add():
        with atomic.adding_files(tmp_path, mark="model.json") as partial:
            for name in ("model.json", "README.md"):
                (partial / name).write_text("new")

    (tmp_path / "README.md").write_text("of somebody else")
    with pytest.raises(ValueError, match="README.md: would be replaced.*no model.json"):
        add()
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "of somebody else"
    (tmp_path / "README.md").unlink()
    add()
    add()
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "model.json"}


def test_two_writers_of_equal_process_id_have_different_temporary_files(tmp_path):
    path = tmp_path / "examples.npz"
    with atomic.replacing(path) as first:
        first.write_text("first")
        with atomic.replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["examples.npz"]


def test_the_longest_file_name_has_a_temporary_name_too(tmp_path):
    path = tmp_path / f"{'x' * 245}.json"
    with atomic.replacing(path) as partial:
        partial.write_text("{}")
    assert path.read_text() == "{}"


def test_the_file_that_a_link_points_to_is_replaced(tmp_path):
    target, link = tmp_path / "elsewhere" / "data", tmp_path / "scores.json"
    target.parent.mkdir()
    target.write_text("before")
    link.symlink_to(target)
    with atomic.replacing(link) as partial:
        assert partial.parent == target.parent and partial.suffix == ".json"
        partial.write_text("after")
    assert link.is_symlink() and target.read_text() == "after"


def test_a_pipe_or_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(OSError, match="pipe: it is no file but a device or pipe"),
        atomic.replacing(tmp_path / "pipe") as partial,
    ):
        partial.write_text("x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_an_error_of_writing_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left.*x.json"):
        with atomic.replacing(tmp_path / "x.json"):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_only_the_leftovers_of_one_file_are_deleted(tmp_path):
    for name in ("config.json", "config.json", "scores.json"):
        with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / name) as x:
            x.write_text("half")
            x.rename(x.with_suffix(".kept"))
    # Rename each back to its temporary name, as a kill leaves it.
    for path in tmp_path.iterdir():
        path.rename(path.with_suffix(".json"))
    (tmp_path / "config.json").write_text("{}")
    atomic.delete_leftovers(tmp_path / "config.json")
    left = sorted(path.name.split(".")[1] for path in tmp_path.glob(".*"))
    assert left == ["scores"] and (tmp_path / "config.json").exists()


def test_an_error_of_opening_names_the_file_and_not_the_temporary_one(tmp_path):
    path = tmp_path / "file.json"
    with pytest.raises(OSError) as caught:
        with atomic.replacing(path) as partial:
            partial.mkdir()
            partial.open("w")
    assert caught.value.filename == str(path)
