"""One line for each case on standard output, which has its numbers, too.

They are then in the log of a machine whose files are lost.
"""

import json
from typing import Any

LONGEST = 1500
"""Characters of a line."""

_MESSAGE, _WORD, _NUMBERS = 300, 16, 4


def result_line(part: str, name: str, result: dict[str, Any]) -> str:
    """Return status and results as one JSON object of at most `LONGEST` characters.

    Only numbers, short words and short lists of numbers are kept. If that is too long,
    the last results are left out, and counted in `left_out`.
    """
    line = {"part": part, "case": name, "status": result["status"]}
    for field in ("error", "reason"):
        if field in result:
            line[field] = result[field][:_MESSAGE]
    if "seconds" in result:
        line["seconds"] = result["seconds"]
    rows = [_small(row) for row in result.get("results", ())]
    for count in range(len(rows), -1, -1):
        left_out = {"left_out": len(rows) - count} if count < len(rows) else {}
        text = json.dumps(line | {"results": rows[:count]} | left_out)
        if len(text) <= LONGEST:
            break
    return text


def _small(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if _is_small(value)}


def _is_small(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _WORD
    if isinstance(value, list):
        numbers = all(isinstance(x, int | float) for x in value)
        return numbers and len(value) <= _NUMBERS
    return value is None or isinstance(value, int | float)
