"""Writes `workdir/`: a run of the first release, killed after two of four steps.

Run with the code of the first release, from the root of its checkout:

    TFDS_DATA_DIR=PREPARED PYTHONPATH=. python make.py /tmp/first_release

and copy config.json, metrics.jsonl and checkpoints/ of that folder. The kernels of the
discriminator, which has 2.8 M parameters at any width, and their moments are replaced
by constants, so that the checkpoint compresses to a few hundred kilobytes. The numbers
that `tests/workdir/test_first_release.py` expects are those that the first release
itself logged when it resumed and evaluated the same folder.
"""

import sys

import jax
import jax.numpy as jnp
from tempseg_jax.checkpoint import Checkpoints

from configs.demo import get_config
from tempseg_jax import experiment


def constant_kernels(path: tuple, x: jax.Array) -> jax.Array:
    """Return 0.001 for a kernel, 0 for its moments, and everything else as it is."""
    names = jax.tree_util.keystr(path)
    if "kernel" not in names:
        return x
    return jnp.full_like(x, 1e-3 if ".params" in names else 0.0)


def main(workdir: str) -> None:
    """Train two steps of four and stop as if killed."""
    config = get_config()
    config.data.batch_size = 4
    config.data.crop_size = 32
    config.data.num_workers = 0
    config.model.width = 0.01
    config.steps = 4
    config.save_every_steps = 2
    config.log_every_steps = 1
    config.evaluate_every_epochs = 0.0
    save = Checkpoints.save

    def save_and_stop(self, state, model, *, metrics):
        player = jax.tree_util.tree_map_with_path(constant_kernels, state.discriminator)
        save(self, state.replace(discriminator=player), model, metrics=metrics)
        raise SystemExit("stopped after step 2")

    Checkpoints.save = save_and_stop
    experiment.train(config, workdir, allow_change=False)


if __name__ == "__main__":
    main(sys.argv[1])
