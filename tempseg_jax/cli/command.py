"""Set-up, one-line error messages and shared arguments of the commands."""

import argparse
import errno
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL, LogRecord, getLogger
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from absl import logging

if TYPE_CHECKING:
    from tempseg_jax.inference.predictor import Predictor


def prepare() -> None:
    """Enable JAX's persistent compilation cache, and silence Orbax's messages.

    Orbax logs many lines for each save, and the traceback of each of its threads in
    which an error occurs, which is raised as well.
    """
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_logger().addFilter(_is_not_from_orbax)
    getLogger("asyncio").setLevel(CRITICAL)  # futures of a save that has failed
    sys.unraisablehook = _unraisablehook
    if not jax.config.jax_compilation_cache_dir:  # set by JAX_COMPILATION_CACHE_DIR
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        xla = cache / "tempseg_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(xla))


def _unraisablehook(unraisable: "sys.UnraisableHookArgs") -> None:
    """Do not show what TensorStore raises in its threads after a save has failed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _is_not_from_orbax(record: LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts


OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
"""The start of XLA's error message if a device runs out of memory."""


@contextmanager
def one_line_errors(*, debug: bool) -> Iterator[None]:
    """Print errors that a user can fix as one line on stderr, and exit with code 1.

    These are ValueError, OSError, and a device that runs out of memory. The package
    raises the first two with a message that names the file or the field, its value, and
    the remedy. With `debug` they are raised with their traceback. Ctrl-C exits with
    code 130, as is usual for an interrupted command, and a pipe that is closed, as by
    `| head`, with 141 and without a message.
    """
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads_stdout():
            sys.exit(128 + signal.SIGPIPE)
        if debug:
            raise
        sys.exit(f"error: {_of_system(error) or error}")
    except jax.errors.JaxRuntimeError as error:
        if debug or OUT_OF_MEMORY not in str(error):
            raise
        sys.exit(
            f"error: the device is out of memory ({str(error).splitlines()[0]}); to "
            "train, lower data.batch_size, data.crop_size or eval_batch_size, raise "
            "accumulate, or set model.remat=True; to predict or evaluate, choose a "
            "smaller --window"
        )


def _nobody_reads_stdout() -> bool:
    """Whether stdout is a closed pipe; if so, discard what is still to be written."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    # Otherwise Python reports the same error again when it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


_REMEDIES = {
    errno.EEXIST: "a file is where a folder is needed; give another path",
    errno.ENOTDIR: "a part of the path is a file; give another path",
    errno.EISDIR: "it is a folder; give the path of a file",
    errno.ENOENT: "check the path",
    errno.EACCES: "check the permissions, or give another path",
    errno.EROFS: "give a path that can be written",
    errno.ENOSPC: "free some space, and start the same command again",
}
"""What to do about errors of the system, which name a file but no remedy."""


def _of_system(error: Exception) -> str | None:
    """Return the path, the reason and the remedy of an error of the system."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    path, reason = os.fsdecode(error.filename), error.strerror or "failed"
    if reason != os.strerror(error.errno or 0):
        return f"{path}: {reason}"  # of the package, with its own remedy
    return f"{path}: {reason.lower()}; {_REMEDIES.get(error.errno, 'check the path')}"


def add_segmenter_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose a checkpoint and the inference settings."""
    parser.add_argument("--workdir", required=True, help="folder of a training run")
    parser.add_argument(
        "--checkpoint",
        default="best",
        help='"best" (highest validation mIoU, the default), "latest", or a step',
    )
    add_inference_arguments(parser)
    parser.add_argument(
        "--precision", help="float32, bfloat16 or float16 (default: that of training)"
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of sliding windows and of test-time augmentation."""
    parser.add_argument(
        "--window",
        type=int,
        help="sliding-window inference with square windows of this many pixels a side; "
        "by default images of up to 2048 x 1024 pixels run whole, and larger ones in "
        "windows of 1024",
    )
    parser.add_argument(
        "--stride",
        type=int,
        help="pixels between windows (default: two thirds of --window)",
    )
    parser.add_argument(
        "--scales",
        default="1",
        help="test-time augmentation: average over these scales, such as 0.75,1,1.25",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="test-time augmentation: also average over the mirror image",
    )


def load_segmenter(options: argparse.Namespace) -> "Predictor":
    """Load the segmenter that the arguments of `add_segmenter_arguments` choose.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If an argument is out of range.
    """
    # Imported here because it is slow, and --help does not need it.
    from tempseg_jax.inference import restore
    from tempseg_jax.inference.settings import parse_scales

    return restore.load(
        options.workdir,
        options.checkpoint,
        window=options.window,
        stride=options.stride,
        scales=parse_scales(options.scales.split(",")),
        flip=options.flip,
        precision=options.precision,
    )
