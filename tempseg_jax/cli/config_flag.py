"""Parsing of `--config` and its overrides, with one-line error messages."""

import difflib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import flags
from absl.flags import FlagHolder

_LIST_FIELDS = "--mode=describe of tempseg_jax.main lists all fields"
_FROM_FILE = (OSError, ImportError, SyntaxError, NameError, AttributeError, KeyError)
_DELAYED = "Configuration is not available because of an earlier failure to load: "
"""How ml_collections begins the message of an OSError without overrides."""
_NO_FIELD = re.compile(
    r"""Key "(\w+)[\w.]*" (?:does not exist|cannot be set)|^["']\\?'(\w+)\\?'"""
)
"""ConfigDict's messages if a field is set, or read, that it does not have."""


def parse(
    argv: list[str],
    config: FlagHolder,
    flag_values: flags.FlagValues | None = None,
    default: Callable[[], str | None] | None = None,
) -> list[str]:
    """Parse the flags as absl does, and return the remaining arguments.

    Args:
        argv: Command line of the program. With `--debug`, an error in the config file
            is raised with its traceback.
        config: The flag `--config`, defined by `config_flags.DEFINE_config_file`.
        flag_values: The flags that it is one of; None means those of the program.
        default: Returns the value of `--config` if it is not given, when all flags but
            overrides of the config have been parsed. Without it, there is none.

    Raises:
        SystemExit: If the config file cannot be read or executed, or an overridden
            field does not exist.
    """
    values = flags.FLAGS if flag_values is None else flag_values
    completed = argv
    try:
        if default is not None and not _is_given(argv):
            values(argv, known_only=True)
            if (value := default()) is not None:
                completed = [argv[0], f"--config={value}", *argv[1:]]
        rest = values(completed)
        if config.value is not None:
            config.value.keys()  # raises OSError if the file cannot be read
    except flags.UnrecognizedFlagError as error:
        message = str(error)
        if error.flagname.startswith("config."):
            message = (
                f"--{error.flagname}: no config comes before it; give the one that it "
                "overrides, such as --config=configs/demo.py"
            )
        _stop(message)
    except flags.Error as error:
        if "Error whilst parsing config file" not in str(error):
            _stop(_plain(str(error)))
        if "--debug" in argv:
            raise
        # A TypeError or ValueError of the file, which ml_collections and absl wrapped.
        sys.exit(f"error: {_in_file(error.__context__.__context__, argv)}")
    except _FROM_FILE as error:
        if "--debug" in argv:
            raise
        sys.exit(f"error: {_message(error, argv)}")
    return rest


def _stop(message: str) -> NoReturn:
    """Exit as absl does for an error in the flags."""
    sys.exit(
        f"FATAL Flags parsing error: {message}\n"
        "Pass --helpshort or --helpfull to see help on flags."
    )


def _plain(message: str) -> str:
    """Return absl's message of a wrong value, or a wrong order, in plain words."""
    found = re.match(
        r"Found (--[\w.]+)=.* in argv before a value for --config", message
    )
    if found:
        return f"{found[1]}: give it after --config"
    found = re.match(r"flag --([\w.]+)=(.*?): (?=invalid lit|could not conv)", message)
    if found:
        kind = "a whole number" if "int()" in message else "a number"
        return f"--{found[1]}={found[2]}: give {kind}"
    found = re.match(r"flag --([\w.]+)=(.*?): .* as a ConfigDict", message)
    if found:
        return (
            f"--{found[1]}={found[2]}: it is a group of fields; set one of them, as by "
            f"--{found[1]}.FIELD=VALUE"
        )
    return message


def _message(error: Exception, argv: list[str]) -> str:
    """Return the flag that caused an error, and what is wrong with it."""
    no_field = isinstance(error, AttributeError | KeyError) and _NO_FIELD.search(
        str(error)
    )
    if no_field:
        field = no_field[1] or no_field[2]
        names = [word.split("=")[0] for word in argv if re.match(r"--?config\.", word)]
        flag = next((x for x in names if field in x.split(".")), "--config")
        similar = re.search(r'Did you mean "(\w+)"', str(error))
        hint = f"did you mean {similar[1]!r}?" if similar else _LIST_FIELDS
        if not similar and ".data.options." in flag:
            hint = (
                "an option that the config does not set is set in the config file: "
                f"config.data.options.{field} = …, or all of them together: "
                f"--config.data.options=\"{{'{field}': …}}\""
            )
        where = _line_of_config(error, argv) if flag == "--config" else ""
        return f"{flag}: {where}the config has no field {field!r}; {hint}"
    if isinstance(error, OSError) and (path := _path(argv)):
        if Path(path).is_dir():
            return f"--config={path}: it is a folder; give the path of a file"
        if not Path(path).exists():
            return f"--config={path}: there is no such file{_similar_config(path)}"
    message = _in_file(error, argv)
    module = error.name if isinstance(error, ImportError) else None
    if str(module).split(".")[0] == "configs" and _are_configs_hidden():
        message += (
            "; another folder named configs hides the project's: run tempseg instead "
            "of python -m tempseg_jax.main, or rename the folder"
        )
    return message


def _in_file(error: Exception, argv: list[str]) -> str:
    """Return an error of the config file, after the flag if it was given."""
    flag = "--config: " if _is_given(argv) else ""
    message = _one_line(error).removeprefix(_DELAYED)
    if message == "module 'config_config' has no attribute 'get_config'":
        return f"{flag}{_path(argv)} does not define the function get_config()"
    return flag + _line_of_config(error, argv) + message


def _line_of_config(error: BaseException | None, argv: list[str]) -> str:
    """Return `mine.py, line 4: `, or "" if no line of the file raised the error."""
    path = _path(argv)
    if Path(path).name == "saved.py":  # its errors are about the workdir
        return ""
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if path and Path(frame.filename).absolute() == Path(path).absolute():
                return f"{path}, line {frame.lineno}: "
        error = error.__cause__ or error.__context__
    return ""


def _is_given(argv: list[str]) -> bool:
    return any(re.match(r"--?config(=|$)", word) for word in argv)


def _path(argv: list[str]) -> str:
    """Return the path of `--config`, or "" if it is not given with =."""
    values = [x.partition("=")[2] for x in argv if re.match(r"--?config=", x)]
    return values[-1].partition(":")[0] if values else ""


def _similar_config(path: str) -> str:
    known = {x.stem: str(x) for x in Path("configs").glob("[a-z]*.py")}
    found = difflib.get_close_matches(Path(path).stem, known, n=1)
    return f"; did you mean {known[found[0]]}?" if found else ""


def _are_configs_hidden() -> bool:
    """Whether `import configs` finds another folder than the project's."""
    try:
        return importlib.util.find_spec("configs.fcn_voc") is None
    except ImportError:
        return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
