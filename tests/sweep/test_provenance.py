"""The recorded origin of a run."""

import importlib.metadata
import subprocess

import pytest

from tempseg_jax.sweep import provenance


@pytest.mark.parametrize(
    "library", ["jax", "flax", "optax", "grain", "orbax-checkpoint", "numpy"]
)
def test_the_installed_version_of_each_library_is_recorded(library):
    recorded = provenance.provenance()
    assert recorded[library] == importlib.metadata.version(library)


def test_python_and_hardware_are_recorded():
    recorded = provenance.provenance()
    assert {"python", "device", "processor"} <= recorded.keys()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of git with a commit of the package, whose files can be changed."""
    code = (
        "tempseg_jax/sweep/provenance.py",
        "tempseg_jax/steps.py",
        "configs/demo.py",
    )
    for name in (*code, "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q"), ("add", *code), ("commit", "-qm", "first")):
        subprocess.run(["git", "-C", tmp_path, *author, *arguments], check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / code[0]))
    return tmp_path


@pytest.mark.parametrize("changed", ["tempseg_jax/steps.py", "configs/demo.py"])
def test_the_commit_says_if_code_was_changed_after_it(repository, changed):
    (repository / "README.md").write_text("not code")
    assert len(provenance.provenance()["commit"]) == 12
    (repository / changed).write_text("x = 1")
    assert provenance.provenance()["commit"].endswith(" and changes")


def test_the_repository_around_an_installed_package_has_not_its_commit(repository):
    git = ["git", "-C", repository, "rm", "-q", "--cached", "-r", "tempseg_jax"]
    subprocess.run(git, check=True)
    assert "commit" not in provenance.provenance()


def test_facts_that_are_not_known_are_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-library"))
    monkeypatch.setenv("PATH", "")  # no git
    recorded = provenance.provenance()
    assert "numpy" in recorded
    assert not {"no-such-library", "commit"} & recorded.keys()
