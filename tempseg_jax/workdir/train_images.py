"""`train_images.txt`: the images of a run that trains on a part of its split."""

from collections.abc import Iterable
from pathlib import Path

from tempseg_jax.io.atomic import replacing

NAME = "train_images.txt"


def write(folder: str | Path, ids: Iterable[str]) -> None:
    """Write the images' ids into the workdir, one per line.

    Raises:
        OSError: If the file cannot be written.
    """
    with replacing(Path(folder) / NAME) as partial:
        partial.write_text("".join(f"{id_}\n" for id_ in ids))
