"""What the tests share: checked shapes, prepared scenes, a tiny config."""

import os
import tempfile

from jaxtyping import install_import_hook

# Before anything imports the package: every annotated shape is then checked.
install_import_hook("tempseg_jax", "beartype.beartype")

# Before anything imports JAX: what one test or its subprocess compiled serves all.
_COMPILED = tempfile.TemporaryDirectory(prefix="tempseg_jax_tests_")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
# Nothing here runs long enough to repay what LLVM spends on optimising it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import importlib.util  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

# NumPy's silent (b, k) + (k,): here it is a mistake until somebody writes it out.
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).parents[1]
TEST_DATA = Path(os.environ.get("TEMPSEG_TEST_DATA") or ROOT.parent / "shared/data")


def load_config(name: str) -> ConfigDict:
    """Return what `--config=configs/<name>.py` gives."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data, as CONTRIBUTING.md lists it."""
    if not TEST_DATA.is_dir():
        pytest.skip(f"no real data: {TEST_DATA} is not there")
    return TEST_DATA


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    """A folder of prepared datasets that holds the generated scenes."""
    from tempseg_jax.data import catalog

    folder = str(tmp_path_factory.mktemp("prepared"))
    catalog.load_split("scenes", split="val", manual_dir=None, data_dir=folder)
    return folder


def make_segmenter(
    name, *, num_classes=5, width=0.05, dtype=jax.numpy.float32, remat=False
):
    """Return a network of SEGMENTERS, by default a narrow one."""
    from tempseg_jax.models import SEGMENTERS
    from tempseg_jax.models.preprocessing import TORCHVISION

    return SEGMENTERS[name](
        num_classes=num_classes,
        preprocessing=TORCHVISION,
        width=width,
        dtype=dtype,
        remat=remat,
    )


def make_demo_config(data_dir: str) -> ConfigDict:
    """Return the demo, of a size at which a step takes a moment."""
    config = load_config("demo")
    config.data.data_dir = data_dir
    config.data.batch_size = 4
    config.data.crop_size = 32
    config.data.num_workers = 0
    config.model.width = 0.05
    config.steps = 4
    return config


@pytest.fixture
def demo_config(data_dir) -> ConfigDict:
    """A config that takes four steps in a moment."""
    return make_demo_config(data_dir)


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory) -> Path:
    """A workdir whose narrow FCN-8s was never trained, but tells classes apart."""
    from tempseg_jax import parts
    from tempseg_jax.checkpoint import Checkpoints
    from tempseg_jax.data import scenes
    from tempseg_jax.data.catalog import Split

    config = load_config("demo")
    config.model.width = 0.05
    names, palette = scenes.Scenes().classes()
    networks = parts.build_networks(config, num_classes=len(names))
    state = parts.initial_state(config, networks)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: x + rng.normal(scale=0.05, size=x.shape).astype(np.float32),
        state.segmenter.params,
    )
    state = state.replace(segmenter=state.segmenter.replace(params=params), step=7)
    split = Split("scenes", "val", [], tuple(names), palette)
    model = parts.describe_model(config, networks, split)
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    checkpoints.save(state, model, metrics={"miou": 0.5})
    checkpoints.close()
    return folder
