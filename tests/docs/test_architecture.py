"""docs/architecture.md: its map is the table of imports that the tests enforce."""

import re

from tests.support import ROOT
from tests.test_layers import MAY_IMPORT

PAGE = (ROOT / "docs/architecture.md").read_text()


def test_the_map_is_the_table_of_allowed_imports():
    rows = re.findall(
        r"^\| \[`(\w+)(?:/|\.py)`\]\(\S+\) \| .* \| (.*) \|$", PAGE, re.MULTILINE
    )
    allowed = {name: set(re.findall(r"`(\w+)`", cell)) for name, cell in rows}
    assert allowed == {name: set(line.split()) for name, line in MAY_IMPORT.items()}
    assert list(allowed) == list(MAY_IMPORT)  # from the bottom up
