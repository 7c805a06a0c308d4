"""Fixtures for all tests, and checks of array shapes."""

import gc
import os
import tempfile
from importlib.metadata import version

from jaxtyping import install_import_hook

# Before anything imports the package: every annotated shape is then checked.
install_import_hook("tempseg_jax", "beartype.beartype")

# Before anything imports JAX: programs that one test compiled serve all others, also in
# subprocesses and in the workers of pytest-xdist, which inherit this environment. A
# folder that a developer names serves the next run of the tests too.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(prefix="tempseg_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Commands that tests start need no huge pages: to get them, they would start twice.
os.environ.setdefault("GLIBC_TUNABLES", "")
# No test runs long enough to repay the time that LLVM spends on optimization. With
# jaxlib 0.10, another compiler of fused operations saves a third of the rest; jaxlib
# 0.12 does not have it, and refuses the flag.
_FLAGS = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _FLAGS)

from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from tests.support import TEST_DATA, load_config, make_demo_config  # noqa: E402

# Tracing a network creates many objects that live long. With Python's thresholds, a
# fifth of the time of these tests is spent on looking for garbage among them.
gc.set_threshold(200_000, 20, 100)
# NumPy's silent (b, k) + (k,) broadcasting is an error unless it is written out.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that CONTRIBUTING.md describes."""
    if not TEST_DATA.is_dir():
        pytest.skip(f"{TEST_DATA}: this folder of real data does not exist")
    return TEST_DATA


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    """A folder of prepared datasets, with the generated scenes."""
    from tempseg_jax.data import catalog

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one folder for all workers
        base = base.parent
    folder = str(base / "prepared")
    catalog.load_split("scenes", split="val", manual_dir=None, data_dir=folder)
    return folder


@pytest.fixture
def demo_config(data_dir) -> ConfigDict:
    """A config that takes four steps within seconds."""
    return make_demo_config(data_dir)


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory) -> Path:
    """A workdir with a narrow FCN-8s whose random weights predict several classes."""
    from tempseg_jax import builders
    from tempseg_jax.data.catalog import Split
    from tempseg_jax.data.sources import scenes
    from tempseg_jax.workdir.checkpoint import Checkpoints

    config = load_config("demo")
    config.model.width = 0.05
    names, palette = scenes.Scenes().classes()
    objective = builders.build_objective(config, num_classes=len(names))
    state = builders.initial_state(config, objective, class_names=names)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: x + rng.normal(scale=0.05, size=x.shape).astype(np.float32),
        state.segmenter.params,
    )
    state = state.replace(
        segmenter=state.segmenter.replace(params=params), step=jnp.int32(7)
    )
    split = Split("scenes", "val", [], tuple(names), palette)
    model = builders.describe_model(config, objective, split)
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    checkpoints.save(state, model)
    checkpoints.add_scores(7, {"miou": 0.5})
    checkpoints.close()
    return folder
