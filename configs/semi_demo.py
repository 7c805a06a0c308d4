"""`demo` with labels for an eighth of the images: 64 of 512 generated scenes.

Run:      python -m tempseg_jax.main --config=configs/semi_demo.py \
              --workdir=runs/semi_demo
Measured: not yet
"""

from ml_collections import ConfigDict

from configs import demo, semi_voc


def get_config() -> ConfigDict:
    """Return `demo` with the fields of `semi_voc`, without its length."""
    return semi_voc.without_labels(demo.get_config())
