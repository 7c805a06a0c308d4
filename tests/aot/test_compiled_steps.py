"""The training steps need no more of a GPU than compiled_steps.json says."""

import jax
import pytest

from tempseg_jax.aot.compilation import missing_compiler
from tests.aot import compiled_steps

TOLERANCE = 1.02


def grown(measured, recorded):
    """Return the figures that are more than 2 % above the recorded ones."""
    return {
        figure: (measured[figure], recorded[figure])
        for figure in compiled_steps.FIGURES
        if measured[figure] > TOLERANCE * recorded[figure]
    }


@pytest.fixture
def figures():
    if missing := missing_compiler():
        pytest.skip(missing)
    recorded = compiled_steps.recorded()
    if jax.__version__ not in recorded:
        pytest.skip(
            f"{compiled_steps.FILE.name} has figures of jax {', '.join(recorded)}, not "
            f"of jax {jax.__version__}"
        )
    return recorded[jax.__version__]


@pytest.mark.cuda_compile
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", compiled_steps.STEPS)
def test_a_step_needs_no_more_memory_bytes_and_kernels_than_recorded(name, figures):
    measured = compiled_steps.measure(name)
    changed = grown(measured, figures[name])
    assert not changed, (
        f"{name}: (measured, recorded) {changed} differ by more than 2 %. If there is "
        "a reason, record it: python -m tests.aot.compiled_steps --reason=..."
    )
    assert measured["convolutions"].keys() == {"bfloat16"}


def test_figures_of_every_step_are_recorded_with_a_reason():
    for version, figures in compiled_steps.recorded().items():
        assert figures.keys() == {"reason", *compiled_steps.STEPS}, version
        assert figures["reason"], version


def test_a_figure_that_grows_by_more_than_two_percent_is_reported():
    recorded = {"need_gib": 4.0, "gb_moved": 20.0, "kernels": 1000}
    assert not grown({"need_gib": 4.07, "gb_moved": 10.0, "kernels": 1020}, recorded)
    assert grown({"need_gib": 4.09, "gb_moved": 20.5, "kernels": 1021}, recorded) == {
        "need_gib": (4.09, 4.0),
        "gb_moved": (20.5, 20.0),
        "kernels": (1021, 1000),
    }
