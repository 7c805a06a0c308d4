"""Datasets by name; `load_split` prepares a dataset on first use, then reads it."""

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


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a prepared dataset."""

    dataset: str
    name: str
    examples: Sequence[Record]  # undecoded, random access
    class_names: tuple[str, ...]
    palette: UInt8[np.ndarray, "k 3"]
    # Number of images of each (height, width), empty if it is not known. It is that of
    # the whole split also if `examples` are only a part.
    sizes: Mapping[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # a message on each image that on_error='skip' skips
    notes: tuple[str, ...] = ()  # on files that are missing or that no split uses

    def gaps(self) -> tuple[str, ...]:
        """Return sentences on images that are missing from the split, and `notes`."""
        if not self.left_out:
            return self.notes
        skipped = (
            f"{self.dataset} {self.name}: images left out as problem files"
            f" (data.on_error=skip): {len(self.left_out)}, such as {self.left_out[0]}"
        )
        return (skipped, *self.notes)


def load_split(
    name: str,
    *,
    split: str,
    manual_dir: str | None,
    data_dir: str | None,
    on_error: str = "raise",
    **options: Any,
) -> Split:
    """Return one split of a dataset, preparing the dataset if it is not prepared.

    Args:
        name: A key of DATASETS.
        split: One of the dataset's splits, such as train or val.
        manual_dir: The folder of the dataset's files; ignored by scenes.
        data_dir: The folder of prepared datasets; None is TFDS_DATA_DIR, or
            ~/tensorflow_datasets if that is not set.
        on_error: 'raise' refuses a dataset with problem files; 'skip' skips them.
        **options: Options of this dataset only, such as `void_index` of folder.

    Raises:
        ValueError: If there is no such dataset, split or option, or if there are
            problem files and `on_error` is 'raise'.
        FileNotFoundError: If `manual_dir` does not hold the dataset.
    """
    source = make_source(name, manual_dir=manual_dir, data_dir=data_dir, **options)
    return _read(source, split, data_dir=data_dir, on_error=on_error)


def load_images(
    folder: str, *, data_dir: str | None, on_error: str, downscale: int
) -> Split:
    """Return the images of a folder without masks, preparing them if they are not.

    All pixels of their labels are void, and there are no classes.

    Args:
        folder: The folder; images in subfolders count too.
        data_dir: See `load_split`.
        on_error: See `load_split`.
        downscale: Divisor of the height and the width of all images.

    Raises:
        ValueError: If there are problem files and `on_error` is 'raise'.
        FileNotFoundError: If the folder does not exist or has no images.
    """
    from tempseg_jax.data.sources.image_folder import ImageFolder

    source = ImageFolder(folder, downscale=downscale)
    return _read(source, "train", data_dir=data_dir, on_error=on_error)


def _read(source: Source, split: str, *, data_dir: str | None, on_error: str) -> Split:
    # TFDS takes long to import and is needed only to read records.
    from tempseg_jax.data import prepared

    expression = source.split_expression(split)
    folder = prepared.prepare(source, data_dir=data_dir, on_error=on_error)
    metadata = prepared.read_metadata(folder)
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    for stored in expression.split("+"):
        for height, width, count in metadata["sizes"][stored]:
            sizes[height, width] += count
    return Split(
        dataset=source.name,
        name=split,
        examples=prepared.Examples(folder, expression=expression),
        class_names=tuple(metadata["class_names"]),
        palette=np.array(metadata["palette"], np.uint8).reshape(-1, 3),
        sizes=sizes,
        left_out=_left_out(metadata["left_out"], expression.split("+")),
        notes=tuple(metadata["notes"]),
    )


def _left_out(
    messages: Mapping[str, list[str]] | list[str], stored: Sequence[str]
) -> tuple[str, ...]:
    """Return the messages on the images that are left out of these splits.

    Datasets that were prepared before have one list, of all splits.
    """
    if isinstance(messages, list):
        return tuple(messages)
    return tuple(x for split in stored for x in messages.get(split, ()))


def make_source(name: str, **options: Any) -> Source:
    """Return the files of a dataset: found, but not read.

    Raises:
        ValueError: If there is no such dataset or option.
    """
    if name not in DATASETS:
        raise ValueError(f"data.name={name!r} is not one of {', '.join(DATASETS)}")
    make = DATASETS[name]
    accepted = inspect.signature(make).parameters
    own = accepted.keys() - {"manual_dir", "data_dir"}
    for option in options:
        if option not in accepted:
            raise ValueError(
                f"data.options.{option} is not an option of the dataset {name}, whose"
                f" options are: {', '.join(sorted(own)) or 'none'}"
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
    mask_values: Mapping[int | str, int] | None = None,
    allow_absent_classes: bool = False,
    downscale: int = 1,
) -> Source:
    from tempseg_jax.data.sources.folder import Folder

    del data_dir
    return Folder(
        manual_dir=manual_dir,
        void_index=void_index,
        class_names=class_names,
        class_colors=class_colors,
        mask_values=mask_values,
        allow_absent_classes=allow_absent_classes,
        downscale=downscale,
    )


def _scenes(*, manual_dir: str | None, data_dir: str | None) -> Source:
    from tempseg_jax.data.sources.scenes import Scenes

    del data_dir
    if manual_dir:
        raise ValueError(
            f"data.manual_dir: {manual_dir} is not read, because data.name='scenes' "
            "generates its images; for your own images write a config by "
            f"scripts/prepare.py --dataset=folder --manual_dir={manual_dir} "
            "--write_config=configs/mine.py"
        )
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
"""Each dataset's name, and the function that finds its files."""

CLASS_NAMES: dict[str, tuple[str, ...] | None] = {
    "cityscapes": labels.CITYSCAPES_CLASSES,
    "folder": None,  # given by `data.options.class_names`, or found in the data
    "scenes": scenes.CLASSES,
    "voc": labels.VOC_CLASSES,
}
"""Class names of each dataset, as far as they are known without reading its files."""
