"""JSON files: written atomically, with null where a number is not finite."""

import json
import math
from pathlib import Path
from typing import Any

from tempseg_jax.io import atomic


def write_json(path: str | Path, content: Any) -> None:
    """Replace a file by `content` as indented JSON.

    Raises:
        OSError: If the file cannot be written.
    """
    with atomic.replacing(path) as partial:
        partial.write_text(json.dumps(finite_or_null(content), indent=2) + "\n")


def finite_or_null(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by None, at any depth."""
    if isinstance(value, dict):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
