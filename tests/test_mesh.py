"""Data parallelism over two virtual devices of a CPU."""

import os
import subprocess
import sys

import jax
import pytest

from tempseg_jax import mesh
from tests.support import ROOT

SCRIPT = """
import tests.conftest  # checks shapes, raises on rank promotion
import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tests.evaluation.test_evaluator import IMAGES, WINDOWS, count, make_split, run
from tests.test_steps import ADVERSARIAL, HYPER, STEP, initial_state, make_batch
from tempseg_jax import mesh

two = mesh.data_mesh(batch_size=4)
one = Mesh(np.array(jax.devices()[:1]), ("data",))
assert (one.size, two.size) == (1, 2)
with pytest.raises(ValueError, match="batch_size .* 3 images do not divide"):
    mesh.data_mesh(batch_size=3)
assert [mesh.round_up(n, two) for n in (1, 2, 3)] == [2, 2, 4]

states, step_metrics = [], []
for devices in (one, two):
    hyper = mesh.replicate(HYPER, devices)
    state = mesh.replicate(initial_state(), devices)
    for _ in range(3):
        batch = mesh.split_batch(jax.tree.map(np.asarray, make_batch()), devices)
        shards = batch["image"].addressable_shards
        assert [len(x.data) for x in shards] == devices.size * [4 // devices.size]
        state, metrics = STEP(state, batch, hyper, objective=ADVERSARIAL)
    (kernel, *_) = jax.tree.leaves(state.segmenter.params)
    assert kernel.sharding.num_devices == devices.size
    states.append(state)
    step_metrics.append(metrics)
for single, parallel in (states, step_metrics):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        single,
        parallel,
    )

# With unlabeled images: no image moves to another device.
from tests.objective import test_semi_supervised as semi
step_metrics = []
for devices in (one, two):
    arguments = (
        mesh.replicate(semi.initial_state(), devices),
        mesh.split_batch(jax.tree.map(np.asarray, semi.make_batch()), devices),
        mesh.replicate(semi.HYPER, devices),
    )
    program = semi.STEP.lower(*arguments, objective=semi.OBJECTIVE).compile().as_text()
    for name in ("all-gather", "all-to-all", "collective-permute"):
        assert name not in program, name
    assert ("all-reduce" in program) == (devices is two)
    step_metrics.append(semi.STEP(*arguments, objective=semi.OBJECTIVE)[1])
for name, value in step_metrics[0].items():
    np.testing.assert_allclose(step_metrics[1][name], value, rtol=1e-5, err_msg=name)

local = mesh.local_mesh()
assert local.size == 2
for settings in ({}, {"settings": WINDOWS}):
    sums, visited = run(make_split(), batch_size=mesh.round_up(3, local), **settings)
    np.testing.assert_array_equal(sums.confusion, count())
    assert len(visited) == len(IMAGES)
print("equal")
"""


@pytest.mark.slow
def test_two_devices_give_the_results_of_one():
    # This includes BatchNorm's statistics, which must be those of the whole batch.
    devices = "--xla_force_host_platform_device_count=2"
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=os.environ
        | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {devices}", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == "equal\n"


def test_batch_sizes_are_rounded_up_to_a_multiple_of_the_devices(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:1] * 4)
    devices = mesh.global_mesh()
    assert [mesh.round_up(x, devices) for x in (1, 4, 5)] == [4, 4, 8]
