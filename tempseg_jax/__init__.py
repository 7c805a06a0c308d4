"""Adversarial semantic segmentation with temperatures, in JAX.

segment = tempseg_jax.load("runs/demo")
labels = segment("photograph.jpg")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tempseg_jax.inference.predictor import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: `import tempseg_jax` stays cheap."""
    if name == "load":
        from tempseg_jax.inference.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
