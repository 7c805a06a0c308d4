"""How a command reads `--config` and its overrides: what is wrong is one line."""

import re
import sys

from absl import app
from absl.flags import FlagHolder

_LIST_THEM = "--mode=describe of tempseg_jax.main lists them"


def parse(argv: list[str], config: FlagHolder) -> list[str]:
    """Parse as absl does, and return what is left over.

    Args:
        argv: of the program.
        config: the flag `--config`, by `config_flags.DEFINE_config_file`.

    Raises:
        SystemExit: the file cannot be read, or it has no such field.
    """
    try:
        rest = app.parse_flags_with_usage(argv)
        if config.value is not None:
            config.value.keys()  # a file that cannot be read shows on its first use
    except OSError as error:
        sys.exit(f"error: --config: {' '.join(str(error).split())}")
    except (AttributeError, KeyError) as error:  # what ConfigDict raises
        field = re.search(r"\w+", str(error))[0]
        flag = next((word for word in argv if field in word), field).split("=")[0]
        meant = re.search(r'Did you mean "(\w+)"', str(error))
        hint = f"did you mean {meant[1]!r}?" if meant else _LIST_THEM
        sys.exit(f"error: {flag}: the config has no field {field!r}; {hint}")
    return rest
