"""What a training run does between steps."""

import sys

import pytest

from tempseg_jax import callbacks
from tempseg_jax.workdir.checkpoint import Checkpoints


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
@pytest.mark.parametrize("has_trim", [True, False], ids=["glibc", "musl"])
def test_free_memory_is_returned_where_the_c_library_can(monkeypatch, has_trim):
    calls = []

    class Library:
        if has_trim:

            def malloc_trim(self, kept):
                calls.append(kept)

    monkeypatch.setattr(callbacks.ctypes, "CDLL", lambda name: Library())
    callbacks._return_free_memory()
    assert calls == [0] * has_trim


@pytest.mark.parametrize(
    ("precision", "player", "saved", "expected"),
    [
        (
            "float32",
            "segmenter",
            True,
            "step 9: segmenter: reason; the last good checkpoint is step 0; lower "
            "optimizer.learning_rate_g, and resume with --allow_config_change",
        ),
        (
            "float16",
            "discriminator",
            False,
            "step 9: discriminator: reason; the last good checkpoint is none; lower "
            "optimizer.learning_rate_d, or use precision=float32, and start again with "
            "--allow_config_change",
        ),
    ],
)
def test_the_remedy_of_a_divergence_is_that_of_its_player(
    saved_run, tmp_path, precision, player, saved, expected
):
    checkpoints = Checkpoints(saved_run if saved else tmp_path)
    steps = checkpoints.steps()
    error = callbacks._diverged(checkpoints, precision, 9, player, "reason")
    assert str(error) == expected.replace("step 0", f"step {steps[-1] if steps else 0}")
