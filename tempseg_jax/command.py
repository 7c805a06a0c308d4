"""What every command does first, and how it ends where it cannot go on."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from absl import logging


def prepare() -> None:
    """Keep compiled programs for the next start, and Orbax quiet."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of every save
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", str(cache / "tempseg_jax" / "xla"))


@contextmanager
def one_line_errors(*, debug: bool) -> Iterator[None]:
    """Turn what a user can mend into one line on stderr and exit code 1.

    Code below raises ValueError, or OSError, with a message that names the file or the
    field, its value, and the remedy. With `debug` the traceback stays.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if debug:
            raise
        sys.exit(f"error: {error}")
