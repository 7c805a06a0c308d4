"""What a training run does between steps."""

import sys

import pytest

from tempseg_jax import callbacks


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


def test_a_save_returns_free_memory(monkeypatch):
    """The memory of a long training rises otherwise (docs/reliability.md)."""
    returned = []
    monkeypatch.setattr(callbacks, "_return_free_memory", lambda: returned.append(1))

    class Anything:
        def __getattr__(self, name):
            return lambda *args, **options: None

    run = callbacks.RunCallbacks.__new__(callbacks.RunCallbacks)
    run.lock = run.writer = run.checkpoints = Anything()
    run.model = {}
    run.save(state=None)
    assert returned == [1]
