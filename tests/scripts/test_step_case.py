"""A step is measured to the end, even if what follows its timing fails."""

import argparse
import importlib
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests.support import ROOT

SCRIPTS = ROOT / "scripts"


class Tiny(nn.Module):
    """The score layer alone."""

    num_classes: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image, *, train):
        return nn.Conv(self.num_classes, (1, 1), name="score")(image / 255)


@pytest.fixture
def step_case(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)  # as Python does when it runs a script
    module = importlib.import_module("benchmark_parts.step_case")

    def tiny(*, num_classes, dtype, **_):
        return Tiny(num_classes, dtype)

    monkeypatch.setitem(module.SEGMENTERS, "tiny", tiny)
    monkeypatch.setattr(module, "matmul_ceiling", lambda dtype: 1e9)
    return module


def measure(step_case):
    args = argparse.Namespace(
        **{"batch": 1, "size": 32, "classes": 3, "steps": 5, "warmup": 1},
        **{"dtype": "float32", "remat": False, "profile": None},
    )
    return step_case.measure(args, "tiny", "supervised")


def test_times_are_kept_if_the_ceiling_cannot_be_measured(
    step_case, monkeypatch, capsys
):
    def out_of_memory(dtype):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(step_case, "matmul_ceiling", out_of_memory)
    result = measure(step_case)
    assert result["ms_per_step"] > 0
    assert result["utilization"] is None and result["ceiling_tflops"] is None
    assert "RESOURCE_EXHAUSTED" in capsys.readouterr().err


def test_times_are_kept_if_the_backend_does_not_tell_the_memory(step_case, monkeypatch):
    monkeypatch.setattr(jax.stages.Compiled, "memory_analysis", lambda self: None)
    result = measure(step_case)
    assert result["ms_per_step"] > 0
    assert result["peak_gib"] is None and result["program_gib"] is None


def test_the_peak_is_read_before_the_product_of_the_ceiling(step_case, monkeypatch):
    order = []
    monkeypatch.setattr(
        step_case, "_peak_bytes", lambda compiled: order.append("peak") or 0
    )
    monkeypatch.setattr(
        step_case, "matmul_ceiling", lambda dtype: order.append("ceiling") or 1e9
    )
    measure(step_case)
    assert order == ["peak", "ceiling"]


@pytest.mark.parametrize("hits", [[], ["a hit"]])
def test_a_result_says_whether_its_program_is_from_the_cache(
    step_case, monkeypatch, hits
):
    monkeypatch.setattr(step_case, "_cache_hits", lambda: hits)
    assert measure(step_case)["from_cache"] is bool(hits)


def test_programs_from_the_compilation_cache_are_counted(tmp_path):
    program = (
        "import jax; from benchmark_parts import step_case\n"
        "hits = step_case._cache_hits()\n"
        "jax.jit(lambda x: x + 1).lower(1.0).compile()\n"
        "print(bool(hits))"
    )
    env = {
        "PYTHONPATH": f"{SCRIPTS}{os.pathsep}{ROOT}",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_ENABLE_COMPILATION_CACHE": "1",
    }
    for expected in ("False", "True"):
        output = subprocess.check_output(
            [sys.executable, "-c", program], env=os.environ | env, text=True
        )
        assert output.split()[-1] == expected
