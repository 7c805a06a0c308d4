"""The commit of the code, which runs and measurements record."""

import subprocess

import pytest

from tempseg_jax.io import git_commit


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of git with a commit of the package, whose files can be changed."""
    code = (
        "tempseg_jax/io/git_commit.py",
        "tempseg_jax/steps.py",
        "configs/demo.py",
    )
    for name in (*code, "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run(["git", "-C", tmp_path, *author, *arguments], check=True)
    monkeypatch.setattr(git_commit, "__file__", str(tmp_path / code[0]))
    return tmp_path


@pytest.mark.parametrize("changed", ["tempseg_jax/steps.py", "configs/demo.py"])
def test_the_commit_says_if_code_was_changed_after_it(repository, changed):
    (repository / "README.md").write_text("not code")
    assert len(git_commit.git_commit()) == 12
    (repository / changed).write_text("x = 1")
    assert git_commit.git_commit().endswith(" and changes")


def test_the_repository_around_an_installed_package_has_not_its_commit(repository):
    git = ["git", "-C", repository, "rm", "-q", "--cached", "-r", "tempseg_jax"]
    subprocess.run(git, check=True)
    assert git_commit.git_commit() == ""
