"""JSON and text files: written atomically, and read with errors that name the line."""

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


def read_json(path: str | Path, *, remedy: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: The file.
        remedy: What to do if it is damaged, for the error message.

    Raises:
        ValueError: If the file is not JSON in UTF-8.
        OSError: If it cannot be read.
    """
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError
        raise ValueError(f"{path}: it is not JSON ({error!s:.120}); {remedy}") from None


def read_text(path: str | Path) -> str:
    """Return the content of a text file, without a byte-order mark.

    Raises:
        ValueError: If it is not UTF-8; the message names the line.
        OSError: If it cannot be read.
    """
    return decode_text(Path(path).read_bytes(), where=str(path))


def decode_text(data: bytes, *, where: str) -> str:
    """Decode UTF-8, without a byte-order mark.

    Raises:
        ValueError: If it is not UTF-8, or has a null byte; the message names the line.
    """
    try:
        text = data.decode("utf-8-sig")
        position = text.find("\0")
        if position < 0:
            return text
        line, problem = text.count("\n", 0, position) + 1, "has a null byte"
    except UnicodeDecodeError as error:
        line, problem = data.count(b"\n", 0, error.start) + 1, "is not UTF-8"
    raise ValueError(
        f"{where}: line {line} {problem}; save the file as UTF-8 text, or restore it"
    )


def finite_or_null(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by None, at any depth."""
    if isinstance(value, dict):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
