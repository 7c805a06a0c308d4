"""Run an exported segmenter; needs only jax, numpy, safetensors and pillow.

    python use.py photograph.jpg labels.png

From Python:

    from use import Exported
    exported = Exported("model")
    labels = exported.labels(images)  # from uint8 RGB (b, h, w, 3) to uint8 (b, h, w)
    p = exported.probabilities(images, temperature=1.0)  # float32 (b, h, w, k)
"""

import json
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
from safetensors.numpy import load_file


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
    from PIL import Image, ImageOps

    exported = Exported(Path(__file__).resolve().parent)
    image = ImageOps.exif_transpose(Image.open(photograph)).convert("RGB")
    labels = exported.labels(np.array(image)[None])[0]
    indexed = Image.fromarray(labels)
    indexed.putpalette(sum(exported.model["palette"], []))
    indexed.save(target)


if __name__ == "__main__":
    main(*sys.argv[1:3])
