"""Lists of the images of a run that trains on a part of its split, or of its labels."""

from collections.abc import Iterable
from pathlib import Path

from tempseg_jax.io.atomic import replacing

TRAIN = "train_images.txt"
LABELED = "labeled_images.txt"
UNLABELED = "unlabeled_images.txt"
NAMES = (TRAIN, LABELED, UNLABELED)


def write(folder: str | Path, name: str, ids: Iterable[str]) -> None:
    """Write the images' ids into a file of the workdir, one per line.

    Raises:
        OSError: If the file cannot be written.
    """
    with replacing(Path(folder) / name) as partial:
        partial.write_text("".join(f"{id_}\n" for id_ in ids))
