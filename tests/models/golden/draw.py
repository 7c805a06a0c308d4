"""Weights and inputs of the golden activations, from NumPy alone.

Both the PyTorch script and the test use this module. A tensor depends only on its name,
shape and kind. NumPy does not change `RandomState` between versions, so every machine
and version draws the same bytes.
"""

import math
import zlib

import numpy as np

# Center and half-width of each kind. Kernels have He's range, so that activations keep
# their magnitude. Biases are positive, so that few values are near 0, where ReLU is not
# differentiable: otherwise fifty BatchNorms in training mode would make rounding errors
# ten times as large.
RANGES = {
    "bias": (0.5, 0.5),
    "scale": (1.0, 0.5),
    "mean": (0.0, 0.5),
    "var": (1.0, 0.5),
    "probability": (0.5, 0.5),
}


def draw(name: str, shape: tuple[int, ...], kind: str, *, fan_in: int = 0):
    """Return float32 values, uniformly distributed in the range of their kind."""
    center, half = (0.0, math.sqrt(6 / fan_in)) if fan_in else RANGES[kind]
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = np.frombuffer(random.bytes(2 * math.prod(shape)), "<i2")
    values = values.astype(np.float32)
    values *= np.float32(half / 2**15)
    values += np.float32(center)
    return values.reshape(shape)


def draw_image(shape: tuple[int, ...]):
    """Return a uint8 RGB batch with independent random values."""
    random = np.random.RandomState(zlib.crc32(repr(shape).encode()))
    return np.frombuffer(random.bytes(math.prod(shape)), np.uint8).reshape(shape)


def draw_fading(shape: tuple[int, ...]):
    """Return `draw_image`, each image darker than the one before.

    The means of images of independent values are nearly equal, and a BatchNorm of these
    means in training mode would make rounding errors large.
    """
    divisors = np.arange(1, shape[0] + 1, dtype=np.uint8)
    return draw_image(shape) // divisors[:, None, None, None]


def summarize(name: str, activation):
    """Return 28 sampled values, the mean, the standard deviation and max |x|."""
    values = np.asarray(activation, np.float64).ravel()
    random = np.random.RandomState(zlib.crc32(name.encode()))
    sample = values[random.randint(0, values.size, 28)]
    return np.array([*sample, values.mean(), values.std(), np.abs(values).max()])
