"""What to do with files of a dataset that cannot be used: stop, or skip them."""

from collections.abc import Sequence

ON_ERROR = ("raise", "skip")
"""Values of `data.on_error`."""

SKIP = (
    "set data.on_error=skip to skip such files (to resume a run with it, also give"
    " --allow_config_change)"
)
"""A remedy, for messages."""

MAX_NAMED = 10
"""Problem files that a message names."""


class ProblemFiles(ValueError):
    """Files that cannot be used: the message names ten, `problems` holds all."""

    def __init__(self, problems: Sequence[str], *, where: str):
        self.problems = tuple(problems)
        super().__init__(
            f"{summary(problems, where=where)} Repair or remove them, or {SKIP}."
        )


def check_on_error(on_error: str) -> None:
    """Check that the value is one of ON_ERROR.

    Raises:
        ValueError: If it is not.
    """
    if on_error not in ON_ERROR:
        raise ValueError(
            f"data.on_error={on_error!r} must be one of {', '.join(ON_ERROR)}"
        )


def summary(problems: Sequence[str], *, where: str) -> str:
    """Return one sentence with the number of problem files and the first ten."""
    named = "; ".join(problems[:MAX_NAMED])
    unnamed = len(problems) - MAX_NAMED
    rest = f"; and {unnamed} more" if unnamed > 0 else ""
    files = "1 problem file" if len(problems) == 1 else f"{len(problems)} problem files"
    return f"{where}: {files}: {named}{rest}."
