r"""Prepare a dataset before training and report its content.

    python scripts/prepare.py --dataset=voc --manual_dir=VOCDIR --split=train_aug
    python scripts/prepare.py --config=configs/resnet50_camvid.py \
        --config.data.manual_dir=CAMVID --preview=grid.png

The report lists image sizes, pixels and images per class, the share of void, and every
problem file. The exit status is 1 if there are problem files. Training with the same
dataset name, folder and options uses the prepared dataset. If a config trains on the
images of data.unlabeled_dir, they are prepared and reported, too. With --tiles, or if
the config sets data.tiles, the training images are also stored as tiles. If the config
sets objective.class_weights, the pixels of each class are counted and stored, too.

For images of your own, this looks at the masks and writes a config:

    python scripts/prepare.py --dataset=folder --manual_dir=OWN \
        --write_config=configs/mine.py
"""

import functools
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from tempseg_jax import builders
from tempseg_jax.builders import config_fields
from tempseg_jax.cli import config_flag
from tempseg_jax.data import class_pixels, inspection, pipeline, tile_preparation
from tempseg_jax.data.catalog import DATASETS, Split, load_split
from tempseg_jax.data.problem_files import MAX_NAMED, ON_ERROR
from tempseg_jax.data.sources import folder_config, folder_survey
from tempseg_jax.data.tiles import Tiles, stored_bytes
from tempseg_jax.io import atomic

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Config file; it replaces the flags of the dataset."
)
_DATASET = flags.DEFINE_enum("dataset", None, list(DATASETS), "Name of the dataset.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of the dataset's files.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared datasets (default: ~/tensorflow_datasets)."
)
_SPLIT = flags.DEFINE_multi_string(
    "split", None, "Split to report (default: train and val)"
)
_OPTION = flags.DEFINE_multi_string(
    "option",
    [],
    "Option of this dataset as NAME=VALUE with VALUE in JSON, such as void_index=11",
)
_ALLOW_MISSING = flags.DEFINE_bool(
    "allow_missing", False, "Prepare an incomplete dataset."
)
_ON_ERROR = flags.DEFINE_enum(
    "on_error", "raise", list(ON_ERROR), "Stop at problem files, or skip them."
)
_TILES = flags.DEFINE_bool(
    "tiles", False, "Also store the first split as tiles, to train on large images."
)
_PREVIEW = flags.DEFINE_string(
    "preview", None, "PNG file to write, with augmented samples of the first split."
)

_WRITE_CONFIG = flags.DEFINE_string(
    "write_config",
    None,
    "With --dataset=folder: a config file to write, which trains on the folder as it "
    "is; it must not exist yet.",
)
_BASE = flags.DEFINE_enum(
    "base",
    "resnet50_camvid",
    list(folder_config.BASES),
    "The config that --write_config derives from; resnet50_c4_camvid and demo train on "
    "a CPU.",
)

_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")

_FIELDS = {
    "dataset": "data.name",
    "manual_dir": "data.manual_dir",
    "data_dir": "data.data_dir",
    "option": "data.options.NAME",
    "allow_missing": "data.options.allow_missing",
    "on_error": "data.on_error",
    "tiles": "data.tiles",
}
"""The config field of each flag."""


def main(argv: list[str]) -> int:
    """Prepare the dataset, print a report, and write the preview if requested."""
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}; flags start with --")
    config, source = _CONFIG.value, None
    if _WRITE_CONFIG.value is not None:
        config, source = _surveyed_config(Path(_WRITE_CONFIG.value))
    arguments, names = _from_flags() if config is None else _from_config(config)
    splits = [load_split(split=name, **arguments) for name in names]
    if source is not None:  # only now: the same command with --on_error=skip may follow
        with atomic.replacing(_WRITE_CONFIG.value) as partial:
            partial.write_text(source)
        print(f"{_WRITE_CONFIG.value}: written, derived from configs/{_BASE.value}.py")
    unlabeled = None
    if config is not None and _trains_on_first_split(config):
        unlabeled = builders.load_unlabeled_dir(config)
    has_problems = _report([*splits, *([] if unlabeled is None else [unlabeled])])
    tiles = None
    if _stores_tiles(config):
        tiles = _prepare_tiles(splits[0], on_error=arguments["on_error"])
        if unlabeled is not None:
            _prepare_tiles(unlabeled, on_error=arguments["on_error"])
    if config is not None and _trains_on_first_split(config):
        _print_class_weights(config)
    if _PREVIEW.value:
        batch = _batch(splits[0], tiles, config)
        picture = inspection.grid(batch, palette=splits[0].palette, columns=2)
        picture = inspection.with_legend(
            picture, names=splits[0].class_names, palette=splits[0].palette
        )
        inspection.save_grid(picture, _PREVIEW.value)
        print(f"{_PREVIEW.value}: augmented samples of {names[0]}")
    return int(has_problems)


def _report(splits: Sequence[Split]) -> bool:
    """Print what the splits hold; return whether there are problem files."""
    reports = [inspection.inspect(split) for split in splits]
    for report in reports:
        print("\n".join(report.lines()))
    for note in splits[0].notes:
        print(f"note: {note}")
    for split in splits:
        if split.left_out:
            print(f"skipped in {split.dataset} {split.name}: {len(split.left_out)}")
            print("\n".join(split.left_out))
    return any(report.problems or report.split.left_out for report in reports)


def _prepare_tiles(split: Split, *, on_error: str) -> Tiles:
    tiles = tile_preparation.prepare(split, on_error=on_error)
    size = stored_bytes(tiles.folder)[1] / 1e9
    print(f"tiles of {split.dataset} {split.name}: {size:.2f} GB in {tiles.folder}")
    return tiles


def _surveyed_config(path: Path) -> tuple[ConfigDict, str]:
    """Survey the folder, and return its config and the source to write to `path`."""
    if _DATASET.value != "folder" or not _MANUAL_DIR.value or _OPTION.value:
        raise ValueError(
            "--write_config needs --dataset=folder and --manual_dir, and no --option"
        )
    if path.exists():
        raise ValueError(f"--write_config={path}: the file exists; name another one")
    found = folder_survey.survey(_MANUAL_DIR.value, on_error=_ON_ERROR.value)
    print("\n".join(found.lines()))
    given = {
        _FIELDS[name]: flags.FLAGS[name].value
        for name in ("data_dir", "on_error", "tiles")
        if flags.FLAGS[name].present
    }
    source = folder_config.config_source(
        found, base=_BASE.value, path=path, fields=given
    )
    namespace: dict[str, Any] = {}
    exec(compile(source, str(path), "exec"), namespace)
    return namespace["get_config"](), source


def _from_config(config: ConfigDict) -> tuple[dict[str, Any], list[str]]:
    for name, field in _FIELDS.items():
        if _CONFIG.value is not None and flags.FLAGS[name].present:
            raise ValueError(
                f"--{name} is ignored with --config; set --config.{field}=… instead"
            )
    config_fields.check_fields(config)
    data = config.data
    arguments = {
        "name": data.name,
        "manual_dir": data.manual_dir,
        "data_dir": data.data_dir,
        "on_error": data.on_error,
        **data.options.to_dict(),
    }
    return arguments, _SPLIT.value or [data.train_split, data.val_split]


def _stores_tiles(config: ConfigDict | None) -> bool:
    if _CONFIG.value is None:
        return _TILES.value  # also with --write_config
    return config.data.tiles and _trains_on_first_split(config)


def _trains_on_first_split(config: ConfigDict) -> bool:
    train_split = config.data.train_split
    return (_SPLIT.value or [train_split])[0] == train_split


def _print_class_weights(config: ConfigDict) -> None:
    """Count the images that training uses the labels of, if the config has weights."""
    name = config.objective.class_weights
    if class_pixels.CLASS_WEIGHTS[name] is None:
        return
    images = builders.load_training_split(config)
    weights = builders.load_class_weights(config, images)
    print(f"class weights of {len(images.examples)} training images, {name}:")
    for class_name, weight in zip(images.class_names, weights, strict=True):
        print(f"  {class_name}: {weight:.4g}")


def _from_flags() -> tuple[dict[str, Any], list[str]]:
    if _DATASET.value is None:
        raise ValueError("neither --dataset nor --config is set; set one of them")
    options = dict(_option(option) for option in _OPTION.value)
    if _ALLOW_MISSING.value:
        options["allow_missing"] = True
    arguments = {
        "name": _DATASET.value,
        "manual_dir": _MANUAL_DIR.value,
        "data_dir": _DATA_DIR.value,
        "on_error": _ON_ERROR.value,
        **options,
    }
    return arguments, _SPLIT.value or ["train", "val"]


def _option(option: str) -> tuple[str, Any]:
    name, equals, value = option.partition("=")
    if not equals:
        raise ValueError(f"--option={option} must be NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"--option={option}: the value is not JSON ({error}); quote strings"
        ) from error


def _batch(split: Split, tiles: Tiles | None, config: ConfigDict | None) -> dict:
    data = None if config is None else config.data
    batches = pipeline.train_batches(
        split,
        tiles=tiles,
        batch_size=8,
        crop_size=data.crop_size if data else 416,
        min_scale=data.min_scale if data else 0.5,
        max_scale=data.max_scale if data else 2.0,
        cat_max_ratio=data.cat_max_ratio if data else 1.0,
        photometric=data.photometric if data else False,
        seed=0,
        start_step=0,
        num_workers=0,
        cache_bytes=0,
        on_error="skip",
        process_index=0,
        process_count=1,
    )
    return next(batches)


def _in_flags(message: str) -> str:
    """Replace the config's fields in a message by the flags that were used."""
    if _CONFIG.value is not None:
        return message
    message = message.replace("data.options.allow_missing=true", "--allow_missing")
    option = re.compile(r"data\.options\.(\w+)=(\{.*?\}|\[\[.*?\]\]|\w+)")
    message = option.sub(r"--option='\1=\2'", message)
    message = re.sub(r"data\.options\.(\w+)", r"--option=\1", message)
    return re.sub(r"\bdata\.(manual_dir|data_dir|on_error|tiles)\b", r"--\1", message)


def _main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # TFDS logs every file that it opens
    try:
        sys.exit(main(argv))
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        problems = getattr(error, "problems", ())
        if len(problems) > MAX_NAMED:  # otherwise the message names all
            print("\n".join(map(_in_flags, problems)))
        sys.exit(f"error: {_in_flags(str(error))}")


_parse = functools.partial(config_flag.parse, config=_CONFIG)

if __name__ == "__main__":
    app.run(_main, flags_parser=_parse)
