import pytest

from tempseg_jax.sweep.report import build
from tests.sweep.report.fake_sweep import write_sweep


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    """A sweep of every table, with all runs finished."""
    folder = tmp_path_factory.mktemp("full")
    return write_sweep(folder, tables=("1", "2", "3", "4", "controls"))


@pytest.fixture(scope="session")
def full_report(full):
    return build.build(full)
