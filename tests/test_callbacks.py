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
