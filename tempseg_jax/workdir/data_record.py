"""What data a run is trained on: data.json, compared when the run is resumed.

The order of the images, the length of the run and its learning rates follow from the
number of images. A resumed run would jump if it changed, and its best checkpoint is
chosen among scores of the same val images.
"""

from collections.abc import Mapping
from pathlib import Path

import jax

from tempseg_jax.io.json_files import read_json, write_json

NAME = "data.json"


def claim(
    folder: str | Path,
    record: Mapping[str, int | str],
    *,
    resumes: bool,
    allow_change: bool,
) -> None:
    """Save numbers that describe the data; refuse to resume if they have changed.

    Args:
        folder: The workdir. Runs of version 0.1 have no data.json, and get one.
        record: Numbers and digests, by name. A file of an earlier version may lack
            some, which are not compared.
        resumes: Whether the run goes on from a checkpoint.
        allow_change: Whether to go on with other data.

    Raises:
        ValueError: If they have changed, or the file is damaged.
        OSError: If the file cannot be written.
    """
    path = Path(folder) / NAME
    if resumes and not allow_change and path.exists():
        remedy = "restore it, or delete it if the data have not changed"
        before = read_json(path, remedy=remedy)
        if not isinstance(before, dict):
            raise ValueError(f"{path}: does not hold numbers by name; {remedy}")
        changes = [
            f"{name.replace('_', ' ')}: {before[name]} before, {value} now"
            for name, value in record.items()
            if before.get(name, value) != value
        ]
        if changes:
            raise ValueError(
                f"{path}: the data have changed since the run was started "
                f"({'; '.join(changes)}); restore them, choose another --workdir, or "
                "pass --allow_config_change to go on with the new data"
            )
    if jax.process_index() == 0:
        write_json(path, dict(record))
