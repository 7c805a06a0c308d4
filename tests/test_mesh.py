"""Two virtual devices of a CPU against one, in a process that has two."""

import os
import subprocess
import sys

from tempseg_jax import mesh
from tests.support import ROOT

SCRIPT = """
import tests.conftest  # checks shapes, raises on rank promotion
import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tests.evaluation.test_evaluator import IMAGES, count, make_split, run
from tests.test_steps import ADVERSARIAL, HYPER, STEP, initial_state, make_batch
from tempseg_jax import mesh

two = mesh.data_mesh(batch_size=4)
one = Mesh(np.array(jax.devices()[:1]), ("data",))
assert (one.size, two.size) == (1, 2)
with pytest.raises(ValueError, match="batch_size .* 3 images do not divide"):
    mesh.data_mesh(batch_size=3)
assert [mesh.divisible(n, two) for n in (1, 2, 3)] == [2, 2, 4]

states, lines = [], []
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
    lines.append(metrics)
for found, reference in (states, lines):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found,
        reference,
    )

local = mesh.local_mesh()
assert local.size == 2
sums, seen = run(make_split(), batch_size=mesh.divisible(3, local))
np.testing.assert_array_equal(sums.confusion, count())
assert len(seen) == len(IMAGES)
print("the same")
"""


def test_two_devices_give_the_answer_of_one():
    # Also BatchNorm's statistics, of both players, which must be of the whole batch.
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
    assert process.stdout == "the same\n"


def test_batches_are_rounded_up_to_the_devices():
    assert mesh.divisible(3, mesh.local_mesh()) % mesh.local_mesh().size == 0
