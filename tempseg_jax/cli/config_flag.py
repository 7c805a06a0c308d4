"""Parsing of `--config` and its overrides, with one-line error messages."""

import re
import sys

from absl import app
from absl.flags import FlagHolder

_LIST_FIELDS = "--mode=describe of tempseg_jax.main lists all fields"


def parse(argv: list[str], config: FlagHolder) -> list[str]:
    """Parse the flags as absl does, and return the remaining arguments.

    Args:
        argv: Command line of the program.
        config: The flag `--config`, defined by `config_flags.DEFINE_config_file`.

    Raises:
        SystemExit: If the config file cannot be read, or an overridden field does not
            exist.
    """
    try:
        rest = app.parse_flags_with_usage(argv)
        if config.value is not None:
            config.value.keys()  # raises OSError if the file cannot be read
    except OSError as error:
        sys.exit(f"error: --config: {' '.join(str(error).split())}")
    except (AttributeError, KeyError) as error:  # ConfigDict: no such field
        field = re.search(r"\w+", str(error))[0]
        flag = next((word for word in argv if field in word), field).split("=")[0]
        similar = re.search(r'Did you mean "(\w+)"', str(error))
        hint = f"did you mean {similar[1]!r}?" if similar else _LIST_FIELDS
        sys.exit(f"error: {flag}: the config has no field {field!r}; {hint}")
    return rest
