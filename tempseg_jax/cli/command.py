"""What every command does first, and how it ends where it cannot go on."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from absl import logging

if TYPE_CHECKING:
    from tempseg_jax.inference.predictor import Predictor


def prepare() -> None:
    """Keep compiled programs for the next start, and Orbax quiet."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of every save
    if not jax.config.jax_compilation_cache_dir:  # JAX_COMPILATION_CACHE_DIR
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        xla = cache / "tempseg_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(xla))


OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
"""What XLA's message begins with where a device's memory does not suffice."""


@contextmanager
def one_line_errors(*, debug: bool) -> Iterator[None]:
    """Turn what a user can mend into one line on stderr and exit code 1.

    Code below raises ValueError, or OSError, with a message that names the file or the
    field, its value, and the remedy. With `debug` the traceback stays. Ctrl-C is exit
    code 130, as of any program that it ends.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError) as error:
        if debug:
            raise
        sys.exit(f"error: {error}")
    except jax.errors.JaxRuntimeError as error:
        if debug or OUT_OF_MEMORY not in str(error):
            raise
        sys.exit(
            f"error: the device's memory is full ({str(error).splitlines()[0]}); lower "
            "data.batch_size, data.crop_size or eval_batch_size, raise accumulate, or "
            "set model.remat=True; predicting and scoring, choose a smaller --window"
        )


def add_segmenter_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which segmenter is used, and how it looks at an image."""
    parser.add_argument("--workdir", required=True, help="of a trained run")
    parser.add_argument(
        "--checkpoint", default="best", help="best (default), latest, or a step"
    )
    parser.add_argument(
        "--window", type=int, help="pixels a side; default: images of up to 2 "
        "megapixels whole, larger ones in windows"
    )  # fmt: skip
    parser.add_argument("--stride", type=int, help="pixels between windows")
    parser.add_argument("--scales", default="1", help="averaged, such as 0.75,1,1.25")
    parser.add_argument(
        "--flip", action="store_true", help="average with the mirror image"
    )
    parser.add_argument(
        "--precision", help="float32, bfloat16 or float16; default: that of training"
    )
    parser.add_argument(
        "--debug", action="store_true", help="show where an error arose"
    )


def load_segmenter(options: argparse.Namespace) -> "Predictor":
    """Restore what the arguments of `add_segmenter_arguments` say.

    Raises:
        FileNotFoundError, ValueError: see `inference.load`.
    """
    # Slow to import: --help, and mistakes in other arguments, need none of it.
    from tempseg_jax.inference import predictor, sliding_window

    return predictor.load(
        options.workdir,
        options.checkpoint,
        window=options.window,
        stride=options.stride,
        scales=sliding_window.parse_scales(options.scales.split(",")),
        flip=options.flip,
        precision=options.precision,
    )
