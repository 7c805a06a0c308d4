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
        assert not folder.exists()
    with atomic.adding_files(folder) as partial:
        (partial / "model.json").write_text("2")
        (partial / "use.py").write_text("2")
    with pytest.raises(KeyboardInterrupt), atomic.adding_files(folder) as partial:
        (partial / "use.py").write_text("3")
        raise KeyboardInterrupt
    contents = {path.name: path.read_text() for path in folder.iterdir()}
    assert contents == {"model.json": "2", "use.py": "2"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
