"""The config of an earlier run, from its workdir: to train again with other values.

Run:      python -m tempseg_jax.main --config=configs/saved.py:runs/demo \
              --workdir=runs/demo_seed1 --config.seed=1
"""

from ml_collections import ConfigDict

from tempseg_jax.workdir import saved_config


def get_config(workdir: str = "") -> ConfigDict:
    """Return the config that the run saved in its workdir."""
    if not workdir:
        raise ValueError(
            "configs/saved.py: the workdir is missing; give it after a colon, as in "
            "--config=configs/saved.py:runs/demo"
        )
    return saved_config.get_config(workdir)
