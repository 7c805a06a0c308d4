"""Weights and inputs of the golden activations: NumPy alone, one rule for both sides.

A tensor depends on its name, shape and kind only. `RandomState` is frozen by NumPy's
policy, so every machine and version draws the same bytes.
"""

import math
import zlib

import numpy as np

# Center and half-width; a kernel's is He's, so that activations keep their size. Biases
# are positive, away from ReLU's kink: else, in training, fifty BatchNorms would make
# rounding errors ten times as large.
RANGES = {
    "bias": (0.5, 0.5),
    "scale": (1.0, 0.5),
    "mean": (0.0, 0.5),
    "var": (1.0, 0.5),
    "probability": (0.5, 0.5),
}


def draw(name: str, shape: tuple[int, ...], kind: str, *, fan_in: int = 0):
    """Return float32 values, uniform in the range of their kind."""
    center, half = (0.0, math.sqrt(6 / fan_in)) if fan_in else RANGES[kind]
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = np.frombuffer(random.bytes(2 * math.prod(shape)), "<i2")
    values = values.astype(np.float32)
    values *= np.float32(half / 2**15)
    values += np.float32(center)
    return values.reshape(shape)


def draw_image(shape: tuple[int, ...]):
    """Return uint8 RGB, each pixel independent."""
    random = np.random.RandomState(zlib.crc32(repr(shape).encode()))
    return np.frombuffer(random.bytes(math.prod(shape)), np.uint8).reshape(shape)


def summarize(name: str, activation):
    """Return 28 sampled values, then mean, standard deviation and largest magnitude."""
    values = np.asarray(activation, np.float64).ravel()
    random = np.random.RandomState(zlib.crc32(name.encode()))
    sample = values[random.randint(0, values.size, 28)]
    return np.array([*sample, values.mean(), values.std(), np.abs(values).max()])
