"""The recorded origin of a run."""

import importlib.metadata

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


def test_facts_that_are_not_known_are_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-library"))
    monkeypatch.setenv("PATH", "")  # no git
    recorded = provenance.provenance()
    assert "numpy" in recorded
    assert not {"no-such-library", "commit"} & recorded.keys()
