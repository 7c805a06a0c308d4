"""Batches of the training pipeline, with the arguments that most tests leave alone."""

import itertools

from tempseg_jax.data import pipeline


def training_batches(split, count, **changes):
    """Return the first batches: four crops of 16x16 pixels, unless changed."""
    arguments = {
        "tiles": None,
        "batch_size": 4,
        "crop_size": 16,
        "min_scale": 0.5,
        "max_scale": 2.0,
        "cat_max_ratio": 0.75,
        "photometric": True,
        "seed": 3,
        "start_step": 0,
        "num_workers": 0,
        "cache_bytes": 0,
        "on_error": "raise",
        "process_index": 0,
        "process_count": 1,
    }
    iterator = pipeline.train_batches(split, **arguments | changes)
    return list(itertools.islice(iterator, count))
