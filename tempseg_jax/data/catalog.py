"""Every dataset by name: `load_split` prepares it on first use, then reads it."""

import collections
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tempseg_jax.data import labels
from tempseg_jax.data.sources import scenes
from tempseg_jax.data.sources.base import Record, Source, data_home

CLASS_NAMES = {
    "voc": labels.VOC_CLASSES,
    "cityscapes": labels.CITYSCAPES_CLASSES,
    "scenes": scenes.CLASSES,
    "folder": None,  # in `data.options.class_names`, or found in the data
}
"""Class names of each dataset, known without reading it."""


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a prepared dataset."""

    dataset: str
    name: str
    examples: Sequence[Record]  # undecoded, random access
    class_names: tuple[str, ...]
    palette: UInt8[np.ndarray, "k 3"]
    # How many images there are of each (height, width); empty: not known.
    sizes: Mapping[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # the problem files that on_error='skip' dropped


def load_split(
    name: str,
    *,
    split: str,
    manual_dir: str | None,
    data_dir: str | None,
    on_error: str = "raise",
    **options: Any,
) -> Split:
    """Return one split of a dataset, which is prepared first if it never was.

    Args:
        name: a key of DATASETS.
        split: train, val, …, as the dataset has them.
        manual_dir: where its files are; ignored where nothing is read.
        data_dir: where prepared datasets are kept; None is TFDS_DATA_DIR, or
            ~/tensorflow_datasets.
        on_error: what to do with problem files: 'raise' or 'skip'.
        **options: what this dataset alone takes, such as `void_index` of folder.

    Raises:
        ValueError: no such dataset, split or option, or files that cannot be used.
        FileNotFoundError: `manual_dir` does not hold the dataset.
    """
    # TFDS is only needed, and only slow to import, once there is something to read.
    from tempseg_jax.data import prepared

    source = make_source(name, manual_dir=manual_dir, data_dir=data_dir, **options)
    expression = source.split_expression(split)
    folder = prepared.prepare(source, data_dir=data_dir, on_error=on_error)
    metadata = prepared.read_metadata(folder)
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    for stored in expression.split("+"):
        for height, width, count in metadata["sizes"][stored]:
            sizes[height, width] += count
    return Split(
        dataset=name,
        name=split,
        examples=prepared.Examples(folder, expression=expression),
        class_names=tuple(metadata["class_names"]),
        palette=np.array(metadata["palette"], np.uint8),
        sizes=sizes,
        left_out=tuple(metadata["left_out"]),
    )


def make_source(name: str, **options: Any) -> Source:
    """Return the named dataset's files, found but not yet read."""
    if name not in DATASETS:
        raise ValueError(
            f"data.name={name!r}: no such dataset; there are {', '.join(DATASETS)}"
        )
    make = DATASETS[name]
    accepted = inspect.signature(make).parameters
    own = accepted.keys() - {"manual_dir", "data_dir"}
    for option in options:
        if option not in accepted:
            raise ValueError(
                f"data.options.{option}: the dataset {name} takes no such option; it"
                f" takes {', '.join(sorted(own)) or 'none'}"
            )
    return make(**options)


def _cityscapes(
    *, manual_dir: str | None, data_dir: str | None, allow_missing: bool = False
) -> Source:
    from tempseg_jax.data.sources.cityscapes import Cityscapes

    del data_dir
    return Cityscapes(manual_dir=manual_dir, allow_missing=allow_missing)


def _folder(
    *,
    manual_dir: str | None,
    data_dir: str | None,
    void_index: int | None = None,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[Sequence[int]] | None = None,
) -> Source:
    from tempseg_jax.data.sources.folder import Folder

    del data_dir
    return Folder(
        manual_dir=manual_dir,
        void_index=void_index,
        class_names=class_names,
        class_colors=class_colors,
    )


def _scenes(*, manual_dir: str | None, data_dir: str | None) -> Source:
    from tempseg_jax.data.sources.scenes import Scenes

    del manual_dir, data_dir
    return Scenes()


def _voc(
    *, manual_dir: str | None, data_dir: str | None, allow_missing: bool = False
) -> Source:
    from tempseg_jax.data.sources.voc import Voc

    return Voc(
        manual_dir=manual_dir,
        download_dir=data_home(data_dir) / "downloads",
        allow_missing=allow_missing,
    )


DATASETS: dict[str, Callable[..., Source]] = {
    "cityscapes": _cityscapes,
    "folder": _folder,
    "scenes": _scenes,
    "voc": _voc,
}
