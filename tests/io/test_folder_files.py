"""The search for files."""

from tempseg_jax.data.sources.base import stat_listing
from tempseg_jax.io.folder_files import files_in, kinds_of, walk


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(folder):
    return [path.relative_to(folder).as_posix() for path in files_in(folder)]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    touch(tmp_path, "b/2.png", "1.png", "._1.png", ".ipynb_checkpoints/1.png")
    assert found(tmp_path) == ["1.png", "b/2.png"]
    assert not [root for root, _ in walk(tmp_path, hidden=False) if "ipynb" in root]
    assert [root for root, _ in walk(tmp_path, hidden=True) if "ipynb" in root]


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "disk/city/1.png", "own/2.png")
    (tmp_path / "own/city").symlink_to(tmp_path / "disk/city")
    (tmp_path / "own/again").symlink_to(tmp_path / "own")
    (tmp_path / "own/more").symlink_to(tmp_path / "own")
    (tmp_path / "own/lost.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "own/itself.png").symlink_to(tmp_path / "own/itself.png")
    files = ["2.png", "city/1.png", "itself.png", "lost.png"]
    assert found(tmp_path / "own") == files
    assert [name for name, _, _ in stat_listing(tmp_path / "own")] == files


def test_folders_that_are_linked_to_each_other_are_read_once_in_each(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a/x").symlink_to(tmp_path / "b")
    (tmp_path / "b/y").symlink_to(tmp_path / "a")
    assert found(tmp_path) == ["a/1.png", "a/x/2.png", "b/2.png", "b/y/1.png"]


def test_kinds_are_counted_the_most_frequent_first(tmp_path):
    touch(tmp_path, "a.txt", "b.csv", "c.csv", "README")
    (tmp_path / "lost").symlink_to(tmp_path / "nothing")
    kinds = kinds_of(files_in(tmp_path))
    assert kinds == ".csv (2), no extension (1), .txt (1), no regular file (1)"
