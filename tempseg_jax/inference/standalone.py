"""Run an exported segmenter, without the package that trained it.

    pip install -r requirements.txt
    python use.py photograph.jpg labels.png

From Python:

    from use import Exported, decode, read_bytes
    exported = Exported("model")
    image = decode(read_bytes("photograph.jpg"), name="photograph.jpg")
    labels = exported.labels(image[None])  # from uint8 RGB (b, h, w, 3), to (b, h, w)
    p = exported.probabilities(image[None], temperature=1.0)  # float32 (b, h, w, k)
"""

import json
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from tempseg_jax.data.image_reader import decode, read_bytes


class Exported:
    """The programs and weights of an export folder, on JAX's default device."""

    def __init__(self, folder: str | Path):
        """Load a folder that `scripts/export.py` wrote."""
        folder = Path(folder)
        self.model = json.loads((folder / "model.json").read_text())
        self._weights = jax.device_put(load_file(folder / "weights.safetensors"))
        self._labels = _program(folder / "labels.jax_export")
        self._probabilities = _program(folder / "probabilities.jax_export")

    def labels(self, images: np.ndarray) -> np.ndarray:
        """Return the most probable class of every pixel."""
        return np.asarray(self._labels(self._weights, images))

    def probabilities(self, images: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Return the probabilities of all classes, softmax(log p / T)."""
        temperature = np.float32(temperature)
        return np.asarray(self._probabilities(self._weights, images, temperature))


def _program(path: Path) -> jax.stages.Wrapped:
    return jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)


def main(photograph: str, target: str) -> None:
    """Write the labels of an image file as a PNG with the classes' colors."""
    exported = Exported(Path(__file__).resolve().parent)
    image = decode(read_bytes(photograph), name=photograph)
    labels = exported.labels(image[None])[0]
    indexed = Image.fromarray(labels)
    indexed.putpalette(sum(exported.model["palette"], []))
    indexed.save(target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python use.py photograph.jpg labels.png")
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
