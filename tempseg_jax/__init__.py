"""Adversarial semantic segmentation with temperature regularization, in JAX.

predictor = tempseg_jax.load("runs/demo")
labels = predictor("photograph.jpg")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tempseg_jax.inference.restore import load

__all__ = ["load"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Import `load` when it is first used, so that `import tempseg_jax` stays fast."""
    if name == "load":
        from tempseg_jax.inference.restore import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
