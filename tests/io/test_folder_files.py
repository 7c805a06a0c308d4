"""The search for files."""

from tempseg_jax.io.folder_files import files_in, kinds_of


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(folder):
    return [path.relative_to(folder).as_posix() for path in files_in(folder)]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    touch(tmp_path, "b/2.png", "1.png", "._1.png", ".ipynb_checkpoints/1.png")
    assert found(tmp_path) == ["1.png", "b/2.png"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "disk/city/1.png", "own/2.png")
    (tmp_path / "own/city").symlink_to(tmp_path / "disk/city")
    (tmp_path / "own/again").symlink_to(tmp_path / "own")
    (tmp_path / "own/lost.png").symlink_to(tmp_path / "nothing")
    assert found(tmp_path / "own") == ["2.png", "city/1.png", "lost.png"]


def test_kinds_are_counted_the_most_frequent_first(tmp_path):
    touch(tmp_path, "a.txt", "b.csv", "c.csv", "README")
    (tmp_path / "lost").symlink_to(tmp_path / "nothing")
    kinds = kinds_of(files_in(tmp_path))
    assert kinds == ".csv (2), no extension (1), .txt (1), no regular file (1)"
